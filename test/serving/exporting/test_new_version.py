import pytest

from etl.common.command_line import UserError
from serving.exporting.new_version import choose_number

LAST = 2 ** 63 - 1


@pytest.mark.parametrize("wanted, highest, number", [
    (None, -1, 1700000000), (None, 1600000000, 1700000000), (None, 1700000000, 1700000001),
    (None, 1900000000, 1900000001),            # a clock ran ahead
    (None, LAST - 1, LAST), (3, 1900000000, 3), (0, LAST, 0)])
def test_the_number_is_above_the_highest_unless_it_is_wanted(wanted, highest, number):
    assert choose_number(wanted, highest, 1700000000, "out") == number


def test_no_number_is_left():
    with pytest.raises(UserError, match="^--output_dir: out: version 9223372036854775807 is the highest "
                       "number that servers read: remove it, or give --version$"):
        choose_number(None, LAST, 1700000000, "out")
