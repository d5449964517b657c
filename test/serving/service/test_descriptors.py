import pytest

from serving.service.descriptors import share


@pytest.mark.parametrize("limit, wanted, found", [
    (65536, (1000, 256), (1000, 256)), (2396, (1000, 256), (1000, 256)), (1024, (1000, 256), (395, 101)),
    (1024, (3000, 256), (510, 43)), (100, (1000, 256), (1, 1)), (1024, (1, 100000), (1, 298))])
def test_what_fits(limit, wanted, found):
    assert share(limit, *wanted) == found
