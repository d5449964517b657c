"""Lines → documents: blank lines, sentences, and the identity of a document."""
import hashlib
import itertools
import re
from typing import List, NamedTuple, Optional, Sequence, Tuple

from etl.text.tokenization import is_closing, is_dropped

# What str.strip strips (no code point beyond U+3000), and what it does not: the byte order mark, the
# zero-width space.
BLANKS = "".join(filter(str.isspace, map(chr, range(0x3001)))) + "\ufeff\u200b"

# A sentence ends after 。！？；… (any run of them) and the closing quotes and brackets that follow.
_SENTENCE = re.compile("[^。！？；!?;…\n]*(?:[。！？；!?;…]+[”’」』）)》\"']*|\n|$)")
_FINAL_MARKS = "。！？；!?;….｡⋯‥"


class Document(NamedTuple):
    """Consecutive sentences.

    Attributes:
      sentences: non-empty stripped strings, in order.
      file_index, offset: its position: the input file, and the byte of its first line.
    """
    sentences: Tuple[str, ...]
    file_index: int
    offset: int

    @property
    def identity(self) -> bytes:
        """128-bit hash of only the text: repeated documents share it."""
        return hashlib.blake2b("\n".join(self.sentences).encode("utf-8", "surrogatepass"),
                               digest_size=16).digest()


def clean_line(line: str) -> str:
    """Strips all whitespace, ideographic space and byte order mark included. `" 你好。\\r"` → `"你好。"`."""
    return line.strip(BLANKS)


def is_blank(line: bytes) -> bool:
    """True for a line of only whitespace in UTF-8; such lines separate documents."""
    if line[:1] > b" " and line[:1] not in (b"\xc2", b"\xe1", b"\xe2", b"\xe3", b"\xef"):
        return False                           # no whitespace character begins with any other byte
    return not clean_line(line.decode("utf-8", "replace"))


def document_from_lines(lines: Sequence[str], file_index: int, offset: int) -> Optional[Document]:
    """One sentence per line. None if nothing is left after cleaning."""
    sentences = tuple(sentence for sentence in map(clean_line, lines) if sentence)
    return Document(sentences, file_index, offset) if sentences else None


def split_sentences(paragraph: str) -> List[str]:
    """Splits raw text at 。！？；… , closing quotes kept with their sentence. `"他说：“好。”走了。"` →
    2 sentences."""
    return [sentence for sentence in map(clean_line, _SENTENCE.findall(paragraph)) if sentence]


def ends_with_final_mark(sentence: str) -> bool:
    """Whether it ends as sentences do, before closing quotes and brackets if any. `"他说：“好。”"` → True;
    `"第一章"` → False."""
    ends = (char for char in reversed(sentence) if not is_closing(char) and not is_dropped(char))
    return next(ends, "") in tuple(_FINAL_MARKS)


def find_sentences(text: str) -> List[int]:
    """Positions in a text of several lines where sentences begin. `"他说：“好。”走了"` → 0, 7."""
    pieces: List[str] = list(filter(None, _SENTENCE.findall(text)))
    return list(itertools.accumulate([0] + list(map(len, pieces))))[:len(pieces)]
