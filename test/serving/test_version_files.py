import pytest

from serving.version_files import version_of


@pytest.mark.parametrize("name, number", [
    ("7", 7), ("1700000000000000000", 1700000000000000000), ("9223372036854775807", 2 ** 63 - 1),
    ("9223372036854775808", None), ("10000000000000000000000", None), ("-1", None), ("7a", None)])
def test_what_names_a_version(name, number):
    assert version_of(name) == number
