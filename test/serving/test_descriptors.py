import pytest

from serving.descriptors import share


@pytest.mark.parametrize("limit, wanted, found", [
    (65536, (1000, 1000), (1000, 1000)), (2128, (1000, 1000), (1000, 1000)), (1024, (1000, 1000), (448, 448)),
    (1024, (3000, 1000), (672, 224)), (100, (1000, 1000), (1, 1)), (1024, (1, 100000), (1, 895))])
def test_what_fits(limit, wanted, found):
    assert share(limit, *wanted) == found
