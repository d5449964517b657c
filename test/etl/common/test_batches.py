import pytest

from etl.common.batches import in_batches


@pytest.mark.parametrize("count, wanted", [(0, []), (2, [[0, 1]]), (3, [[0, 1, 2]]), (4, [[0, 1, 2], [3]])])
def test_lists_are_full_but_the_last(count, wanted):
    assert list(in_batches(iter(range(count)), 3)) == wanted
