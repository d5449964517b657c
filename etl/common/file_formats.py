"""What a file is that should be text: by its first bytes, whatever its name.

Sources: the formats' own specifications; of LZMA without a container (.lzma), which has no signature, its
usual header; of tar, whose first form has none either, the checksum of its header.
"""
import codecs
from typing import Optional

from etl.common.files import encoding_by_mark

HEAD_BYTES = 4096                              # enough of a file for `format_of`

_AS_JSON = ": write its text as JSON lines first"
_AS_TEXT = ": save its text as UTF-8 first"
_ARCHIVE = (
    (b"word/", "a Word document (.docx)" + _AS_TEXT),
    (b"xl/", "an Excel file (.xlsx): save it as CSV in UTF-8 first"),
    (b"ppt/", "a PowerPoint file (.pptx)" + _AS_TEXT),
    (b"application/epub+zip", "an e-book (.epub): take its text out first"),
    (b"application/vnd.oasis.", "an OpenDocument file" + _AS_TEXT),
    (b"[Content_Types].xml", "an Office document (.docx, .xlsx, .pptx)" + _AS_TEXT),
)
# Offset and bytes at the beginning of a format, and what to do with such a file.
_FORMATS = (
    (0, b"\x1f\x8b", "gzip-compressed: unpack it first (gunzip)"),
    (4, b"1AY&SY", "bzip2-compressed: unpack it first (bunzip2)"),
    (0, b"\x1f\x9d", "compressed (.Z): unpack it first (uncompress)"),
    (0, b"\xfd7zXZ\0", "xz-compressed: unpack it first (unxz)"),
    (0, b"\x5d\0\0", "lzma-compressed: unpack it first (unlzma)"),
    (0, b"LZIP", "lzip-compressed: unpack it first (lzip -d)"),
    (0, b"\x89LZO\0", "lzop-compressed: unpack it first (lzop -d)"),
    (0, b"\x28\xb5\x2f\xfd", "zstd-compressed: unpack it first (unzstd)"),
    (0, b"\x04\x22\x4d\x18", "lz4-compressed: unpack it first (unlz4)"),
    (0, b"\x02\x21\x4c\x18", "lz4-compressed: unpack it first (unlz4)"),
    (0, b"\xff\x06\0\0sNaPpY", "snappy-compressed: unpack it first"),
    (0, b"PK\x03\x04", "a zip archive: unpack it first (unzip)"),
    (0, b"PK\x05\x06", "an empty zip archive"),
    (0, b"PK\x07\x08", "a zip archive in parts: join and unpack it first"),
    (0, b"7z\xbc\xaf\x27\x1c", "a 7z archive: unpack it first (7z x)"),
    (0, b"Rar!\x1a\x07", "a rar archive: unpack it first (unrar x)"),
    (0, b"MSCF\0\0\0\0", "a cabinet archive: unpack it first"),
    (0, b"!<arch>\n", "an ar archive: unpack it first (ar x)"),
    (0, b"%PDF-", "a PDF: take its text out first"),
    (0, b"{\\rtf", "a rich-text document (.rtf)" + _AS_TEXT),
    (0, b"\xd0\xcf\x11\xe0\xa1\xb1\x1a\xe1", "an old Office document (.doc, .xls, .ppt)" + _AS_TEXT),
    (0, b"PAR1", "a Parquet file" + _AS_JSON),
    (0, b"ORC", "an ORC file" + _AS_JSON),
    (0, b"Obj\x01", "an Avro file" + _AS_JSON),
    (0, b"ARROW1\0\0", "an Arrow file" + _AS_JSON),
    (0, b"FEA1", "a Feather file" + _AS_JSON),
    (0, b"\xff\xff\xff\xff\x08\0\0\0", "an Arrow stream" + _AS_JSON),
    (0, b"SQLite format 3\0", "an SQLite database" + _AS_JSON),
    (0, b"\x89HDF\r\n", "an HDF5 file" + _AS_JSON),
    (0, b"\x93NUMPY", "a NumPy file" + _AS_JSON),
    (0, b"\x80\x02", "a Python pickle" + _AS_JSON),
    (0, b"\x80\x03", "a Python pickle" + _AS_JSON),
    (0, b"\x80\x04\x95", "a Python pickle" + _AS_JSON),
    (0, b"\x80\x05\x95", "a Python pickle" + _AS_JSON),
    (0, b"\x89PNG\r\n", "an image"),
    (0, b"\xff\xd8\xff", "an image"),
    (0, b"GIF8", "an image"),
    (0, b"\x7fELF", "a program"),
)
_TAR = "a tar archive: unpack it first (tar -xf)"
_ENCODINGS = ("UTF-32LE", "UTF-32BE", "UTF-16LE", "UTF-16BE")
# Of a wide encoding without a mark: what most characters of a text are.
_USUAL = ((9, 13), (0x20, 0x7E), (0x2010, 0x2027), (0x3000, 0x303F), (0x4E00, 0x9FFF), (0xFF00, 0xFFEF))
_MOST_USUAL, _FEWEST_CHARS = 0.9, 8


def format_of(head: bytes) -> Optional[str]:
    """What a file is that begins with these bytes, and what to do with it; None for what may be text in
    UTF-8 or an encoding with single bytes for ASCII.

    Args:
      head: the first HEAD_BYTES of the file, or all of it.
    """
    # letters and digits alone may begin a text, too
    what = next((what for at, begin, what in _FORMATS
                 if head[at:at + len(begin)] == begin and not (begin.isalnum() and b"\0" not in head)), None)
    if what and head.startswith(b"PK"):
        return next((inside for name, inside in _ARCHIVE if name in head), what)
    if not what and len(head) > 7 and head[0] & 0xF0 == 0x50 and head[1:4] == b"\x2a\x4d\x18":
        return "zstd- or lz4-compressed, with a frame to be skipped: unpack it first (unzstd, unlz4)"
    if not what and _is_tar(head):
        return _TAR
    encoding = None if what else encoding_of(head)
    return what or encoding and "%s: convert it: iconv -f %s -t UTF-8" % (encoding, encoding)


def encoding_of(head: bytes) -> Optional[str]:
    """UTF-16 or UTF-32 in which a text begins, by its byte order mark or, without one, because it is text in
    this encoding alone; None for others."""
    if encoding_by_mark(head) or b"\0" not in head and _decoded(head, "utf-8") is not None:
        return encoding_by_mark(head) or None
    for name in _ENCODINGS:
        text = _decoded(head, name) or ""
        if len(text) >= _FEWEST_CHARS and sum(any(first <= ord(char) <= last for first, last in _USUAL)
                                              for char in text) >= _MOST_USUAL * len(text):
            return name
    return None


def _decoded(head: bytes, encoding: str) -> Optional[str]:
    """The text of a beginning, whose last character may be incomplete."""
    try:
        return codecs.getincrementaldecoder(encoding)().decode(head)
    except UnicodeDecodeError:
        return None


def _is_tar(head: bytes) -> bool:
    """Whether the checksum of a tar header is right: the sum of its bytes, with blanks in the sum's place."""
    block, checksum = head[:512], head[148:156].strip(b" \0")
    return (len(block) == 512 and checksum.isdigit() and not checksum.translate(None, b"01234567")
            and int(checksum, 8) == sum(block[:148]) + 8 * ord(" ") + sum(block[156:]))
