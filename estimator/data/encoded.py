"""Examples → rows of token ids, encoded once: no padding, so that a batch is as long as its longest row.

A row is an example or, with a stride, one of the sliding windows over a long text. Rows are cached in a file
whose name is a hash of everything they depend on, the examples themselves included: other data, another
vocabulary or another length gives another name.
"""
import hashlib
import io
import json
import os
import zipfile
from typing import Dict, List, NamedTuple, Optional, Sequence

import numpy as np

from estimator.data.tasks import Example
from etl.common import files
from etl.common.command_line import UserError
from etl.text.pairs import pack_pair
from etl.text.tokenization import TokenizerConfig, load_tokenizer

FORMAT_VERSION = 1                             # to be increased when the same input gives different rows

Batch = Dict[str, np.ndarray]


class Rows(NamedTuple):
    """Model inputs of all lengths, concatenated."""
    input_ids: np.ndarray        # int32 [tokens of all rows]
    segment_ids: np.ndarray      # int32, likewise
    starts: np.ndarray           # int64 [rows + 1]: where each row begins, and the end of the last
    example_numbers: np.ndarray  # int32 [rows]: the example of each row, ascending
    label_ids: np.ndarray        # [rows]: int32 class ids; float32 in a regression; 0 without a label

    @property
    def lengths(self) -> np.ndarray:
        """int64 [rows]."""
        return np.diff(self.starts)

    @property
    def first_rows(self) -> np.ndarray:
        """int64 [examples]: the first row of each."""
        return np.flatnonzero(np.diff(self.example_numbers, prepend=-1))

    def batch(self, chosen: np.ndarray, seq_length: Optional[int] = None) -> Batch:
        """The chosen rows, padded with 0 to `seq_length`, by default to the longest of them.

        Returns:
          input_ids, input_mask, segment_ids: int32 [chosen, length]; label_ids: [chosen].
        """
        lengths = self.lengths[chosen, np.newaxis]
        columns = np.arange(seq_length or lengths.max())
        mask = (columns < lengths).astype(np.int32)
        places = np.where(mask, self.starts[chosen, np.newaxis] + columns, 0)
        return {"input_ids": self.input_ids[places] * mask, "input_mask": mask,
                "segment_ids": self.segment_ids[places] * mask, "label_ids": self.label_ids[chosen]}


class Encoding(NamedTuple):
    """How examples become rows."""
    tokenizer: TokenizerConfig
    max_seq_length: int
    doc_stride: Optional[int] = None    # tokens between the starts of windows; None: long texts are truncated
    labels: Sequence[str] = ()          # by class index; () in a regression


def load_or_make_rows(examples: Sequence[Example], encoding: Encoding, cache_dir: str) -> Rows:
    """The rows of `examples`: read from `cache_dir` if present, otherwise encoded; writes nothing.

    Raises UserError for an unreadable file there.
    """
    path = cache_path(examples, encoding, cache_dir)
    if os.path.exists(path):
        try:
            with open(path, "rb") as stream, zipfile.ZipFile(stream):
                pass  # np.load would leave a partial object for a truncated file, which raises later
            with np.load(path) as arrays:
                return Rows(**arrays)
        except (OSError, ValueError, TypeError, EOFError, zipfile.BadZipFile) as error:
            raise UserError("%s: cannot be read, remove it: %s" % (path, error))
    return make_rows(examples, encoding)


def save(rows: Rows, path: str) -> None:
    """Writes rows where `load_or_make_rows` looks for them; an existing file is already correct."""
    if not os.path.exists(path):
        archive = io.BytesIO()  # on a full disk, np.savez would leave a partial object, which raises later
        np.savez(archive, **rows._asdict())
        with files.atomic_write(path) as stream:
            stream.write(archive.getbuffer())


def cache_path(examples: Sequence[Example], encoding: Encoding, cache_dir: str) -> str:
    """The path of the rows of exactly these examples."""
    return os.path.join(cache_dir, "%s.npz" % key(examples, encoding))


def key(examples: Sequence[Example], encoding: Encoding) -> str:
    """A hash of everything that the rows of these examples depend on, the vocabulary included: 32 hexadecimal
    digits."""
    tokenizer = encoding.tokenizer
    digest = hashlib.sha256(json.dumps([
        FORMAT_VERSION, files.sha256_of_file(tokenizer.vocabulary_file), tokenizer.do_lower_case,
        encoding.max_seq_length, encoding.doc_stride, list(encoding.labels)]).encode("utf-8"))
    for example in examples:
        digest.update(json.dumps(example[:3]).encode("utf-8"))
    return digest.hexdigest()[:32]


def make_rows(examples: Sequence[Example], encoding: Encoding) -> Rows:
    """Tokenizes examples; with a stride a text longer than max_seq_length becomes several rows."""
    tokenizer = load_tokenizer(encoding.tokenizer)
    index = {label: number for number, label in enumerate(encoding.labels)}
    input_ids: List[np.ndarray] = []
    segment_ids: List[np.ndarray] = []
    example_numbers: List[int] = []
    for number, example in enumerate(examples):
        if encoding.doc_stride is None:
            packed = [pack_pair(tokenizer, example.text_a, example.text_b, encoding.max_seq_length)]
            input_ids.append(packed[0].input_ids)
            segment_ids.append(packed[0].segment_ids)
        else:
            windows = windows_of(tokenizer.encode(example.text_a).ids, encoding.max_seq_length - 2,
                                 encoding.doc_stride)
            packed = [np.concatenate([[tokenizer.vocabulary.cls], ids, [tokenizer.vocabulary.sep]])
                      for ids in windows]
            input_ids += packed
            segment_ids += [np.zeros_like(ids) for ids in packed]
        example_numbers += [number] * len(packed)
    labels = [index.get(example.label, 0) if index else float(example.label or 0) for example in examples]
    return Rows(np.concatenate(input_ids).astype(np.int32), np.concatenate(segment_ids).astype(np.int32),
                np.cumsum([0] + [len(ids) for ids in input_ids]), np.array(example_numbers, np.int32),
                np.array(labels, np.int32 if index else np.float32)[example_numbers])


def windows_of(ids: np.ndarray, size: int, stride: int) -> List[np.ndarray]:
    """Windows of `size` ids that start `stride` apart, up to the one that reaches the end.

    `([1, 2, 3, 4, 5], 3, 2)` → `[1, 2, 3], [3, 4, 5]`.
    """
    last = max(0, len(ids) - size)
    return [ids[begin:begin + size] for begin in range(0, last + stride, stride)]
