import io
import lzma
import tarfile
import zipfile

import pytest

from etl.common.file_formats import format_of

TEXT = "第一行。\n第二行，好。\n"
TAR = "a tar archive: unpack it first (tar -xf)"


def tar(form):
    stream = io.BytesIO()
    with tarfile.open(fileobj=stream, mode="w", format=form) as archive:
        archive.addfile(tarfile.TarInfo("a.txt"), io.BytesIO())
    return stream.getvalue()


def tar_of_version_7():
    """Without `ustar`, the form before POSIX; only its checksum says what it is."""
    block = bytearray(tar(tarfile.USTAR_FORMAT)[:512])
    block[257:265] = bytes(8)
    block[148:156] = b" " * 8
    block[148:156] = b"%06o\0 " % sum(block)
    return bytes(block)


def zip_of(*names):
    stream = io.BytesIO()
    with zipfile.ZipFile(stream, "w") as archive:
        for name in names:
            archive.writestr(name, "x")
    return stream.getvalue()


@pytest.mark.parametrize("head, what", [
    (tar(tarfile.USTAR_FORMAT), TAR), (tar(tarfile.GNU_FORMAT), TAR), (tar(tarfile.PAX_FORMAT), TAR),
    (tar_of_version_7(), TAR),
    (lzma.compress(b"a", lzma.FORMAT_ALONE), "lzma-compressed: unpack it first (unlzma)"),
    (b"\x1f\x9d\x90", "compressed (.Z): unpack it first (uncompress)"),
    (b"\x50\x2a\x4d\x18\x04\0\0\0",
     "zstd- or lz4-compressed, with a frame to be skipped: unpack it first (unzstd, unlz4)"),
    (b"7z\xbc\xaf\x27\x1c\0", "a 7z archive: unpack it first (7z x)"),
    (b"Rar!\x1a\x07\x01\0", "a rar archive: unpack it first (unrar x)"),
    (zip_of("a.txt"), "a zip archive: unpack it first (unzip)"),
    (zip_of("[Content_Types].xml", "word/document.xml"),
     "a Word document (.docx): save its text as UTF-8 first"),
    (zip_of("[Content_Types].xml", "xl/workbook.xml"),
     "an Excel file (.xlsx): save it as CSV in UTF-8 first"),
    (b"%PDF-1.7\n", "a PDF: take its text out first"),
    (b"PAR1\x15\0", "a Parquet file: write its text as JSON lines first"),
    (TEXT.encode("utf-16"), "UTF-16: convert it: iconv -f UTF-16 -t UTF-8"),
    (TEXT.encode("utf-32"), "UTF-32: convert it: iconv -f UTF-32 -t UTF-8"),
    (TEXT.encode("utf-16-le"), "UTF-16LE: convert it: iconv -f UTF-16LE -t UTF-8"),
    (TEXT.encode("utf-16-be")[:-1], "UTF-16BE: convert it: iconv -f UTF-16BE -t UTF-8"),
    (TEXT.encode("utf-32-le"), "UTF-32LE: convert it: iconv -f UTF-32LE -t UTF-8"),
    ("ascii text".encode("utf-16-le"), "UTF-16LE: convert it: iconv -f UTF-16LE -t UTF-8"),
], ids=lambda value: "head" if isinstance(value, bytes) else None)
def test_what_is_no_text(head, what):
    assert format_of(head) == what


@pytest.mark.parametrize("head", [
    b"", b"a", TEXT.encode("utf-8"), TEXT.encode("utf-8")[:-2], TEXT.encode("utf-8-sig"),
    TEXT.encode("gb18030"),
    b"a\xff\n", b"Rar! 7z", b"PAR1 and ORC", b"nul \0 in a text\n", b"]", "é".encode("latin-1") * 100,
    b"1" * 600, bytes(600)])
def test_what_may_be_text(head):
    assert format_of(head) is None
