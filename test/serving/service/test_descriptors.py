import pytest

from serving.service.descriptors import share


@pytest.mark.parametrize("limit, wanted, found", [
    (65536, (1000, 256), (1000, 256)), (2021, (1000, 256), (1000, 256)), (1024, (1000, 256), (473, 121)),
    (1024, (3000, 256), (648, 55)), (100, (1000, 256), (1, 1)), (1024, (1, 100000), (1, 298))])
def test_what_fits(limit, wanted, found):
    assert share(limit, *wanted) == found
