import pytest

from serving.service.header_blocks import MAX_ENTRIES, HeaderTable

PLAIN = b"\0\x01a\x02bc"                       # a: bc, in no table
KEPT = b"\x40\x03abc\x7f\xbd\x1d" + b"v" * 3900


@pytest.mark.parametrize("block, size", [
    (b"", 0),
    (PLAIN, 35),
    (PLAIN + b"\x10\x01a\x02bc", 70),          # never to be kept
    (b"\x82", 28 + 32),                        # of the static table
    (b"\x04\x02/x", 27 + 2 + 32),              # a name of it
    (b"\0\x81\x1f\x85abcde", 1 + 8 + 32),      # in Huffman's code
    (b"\x20\x3f\xe1\x1f" + PLAIN, 35),         # other sizes of the table
    (KEPT, 3903 + 32),
    (KEPT + b"\xbe\xbe", 3 * (3903 + 32)),
    (KEPT + b"\x40\x01a\x01b" + b"\xbf\xbe", 2 * (3903 + 32) + 2 * (2 + 32)),
    (KEPT + b"\x7e\x01x" + b"\xbe", 3903 + 32 + 2 * (4 + 32)),     # a name of the table, which is kept again
])
def test_what_a_block_becomes(block, size):
    assert HeaderTable().measure(block) == size


def test_entries_last_from_block_to_block_until_newer_ones_push_them_out():
    table = HeaderTable()
    assert table.measure(KEPT) == 3903 + 32
    assert table.measure(b"\x40\x01a\x01b" * (MAX_ENTRIES - 1)) == (MAX_ENTRIES - 1) * 34
    assert table.measure(b"\xff\x3e") == 3903 + 32     # 61 of the static table, and this one is the 128th
    table.measure(b"\x40\x01a\x01b")
    assert table.measure(b"\xff\x3e") == 34


@pytest.mark.parametrize("block", [
    # few bytes, many headers
    KEPT + b"\xbe" * 11000, b"\x82" * 15000, b"\x40\x01a\x01b" + b"\xbe" * 15000, b"\0\0\0" * 1100,
    b"\xbe", b"\x7e\x01x", KEPT + b"\xbf",     # entries that are not there
    b"\0", b"\0\x01", b"\0\x01a", b"\0\x01a\x05bc", b"\x40\x7f\xff\xff\xff\xff\xff\x0f", b"\xff", b"\xff\x80",
    b"\0\xff\xff",])
def test_blocks_that_become_too_much_or_are_malformed(block):
    with pytest.raises(ValueError):
        HeaderTable().measure(block)
