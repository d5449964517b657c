"""Examples → rows of token ids, encoded once: no padding, so that a batch is as long as its longest row.

A row is an example or one of several: of the windows that a long text is read through, or of the candidates
for an answer, which stand in a batch together. Rows are kept in a file whose name is a hash of all they
depend on, the examples themselves included: rows of other data, another vocabulary or another length have
another name.
"""
import hashlib
import io
import json
import os
import zipfile
from typing import Any, Callable, Dict, List, NamedTuple, Optional, Sequence, Tuple

import numpy as np

from estimator.data.tasks import Example
from estimator.model.kinds import CLASSES
from etl.common import files
from etl.common.command_line import UserError
from etl.text.pairs import pack_pair
from etl.text.tokenization import TokenizerConfig, load_tokenizer
from etl.text.windows import Window, begins_of_windows

FORMAT_VERSION = 2                             # to be increased when the same input gives different rows

Batch = Dict[str, np.ndarray]


class Rows(NamedTuple):
    """Model inputs of all lengths, concatenated. Batches consist of *units*: rows or, where rows stand
    together, all rows of an example."""
    input_ids: np.ndarray        # int32 [tokens of all rows]
    segment_ids: np.ndarray      # int32, likewise
    starts: np.ndarray           # int64 [rows + 1]: where each row begins, and the end of the last
    example_numbers: np.ndarray  # int32 [rows]: the example that each row is of, ascending
    # [units] int32 class ids, float32 in a regression, 0 where there is no label; [units, 2] int32: the
    # tokens in which an answer begins and ends; or int32 [tokens of all rows]: of each its tag + 1, or 0
    label_ids: np.ndarray
    spans: np.ndarray = np.zeros((0, 2), np.int32)     # see windows.Window, of all rows' tokens; or none
    together: np.ndarray = np.array(False)     # whether an example's rows are one unit

    @property
    def lengths(self) -> np.ndarray:
        """int64 [rows]."""
        return np.diff(self.starts)

    @property
    def first_rows(self) -> np.ndarray:
        """int64 [examples]: the first row of each."""
        return np.flatnonzero(np.diff(self.example_numbers, prepend=-1))

    @property
    def rows_of_examples(self) -> np.ndarray:
        """int64 [examples]: how many each has."""
        return np.bincount(self.example_numbers)

    @property
    def labels_tokens(self) -> bool:
        """Whether there is a label for each token; a row has at least two, [CLS] and [SEP]."""
        return len(self.label_ids) == len(self.input_ids)

    @property
    def unit_lengths(self) -> np.ndarray:
        """int64 [units]: of each the longest row's."""
        return np.maximum.reduceat(self.lengths, self.first_rows) if self.together else self.lengths

    def batch(self, chosen: np.ndarray, seq_length: Optional[int] = None) -> Batch:
        """The chosen units, padded with 0 to `seq_length`, without it to the longest row of them.

        Returns:
          input_ids, input_mask, segment_ids: int32 [chosen, length]; where rows stand together [chosen, rows,
          length], with as many rows as the example that has most, of all where there is a `seq_length`, and
          nothing but 0 in those that others lack. label_ids: [chosen, …], of tokens padded with 0, too.
        """
        numbers, present = chosen, np.ones(chosen.shape, bool)
        if self.together:
            counts = self.rows_of_examples
            number = np.arange((counts if seq_length else counts[chosen]).max())
            present = number < counts[chosen, np.newaxis]
            numbers = np.where(present, self.first_rows[chosen, np.newaxis] + number, 0)
        lengths = (self.lengths[numbers] * present)[..., np.newaxis]
        columns = np.arange(seq_length or lengths.max())
        mask = (columns < lengths).astype(np.int32)
        places = np.where(mask, self.starts[numbers][..., np.newaxis] + columns, 0)
        labels = self.label_ids[places] * mask if self.labels_tokens else self.label_ids[chosen]
        return {"input_ids": self.input_ids[places] * mask, "input_mask": mask,
                "segment_ids": self.segment_ids[places] * mask, "label_ids": labels}

    def features(self, batch_size: int,
                 seq_length: Optional[int]) -> Dict[str, Tuple[Any, List[Optional[int]]]]:
        """Type and shape of what `batch` gives, by name; None for sizes that differ from batch to batch."""
        shape: List[Optional[int]] = [batch_size, seq_length]
        if self.together:
            shape.insert(1, int(self.rows_of_examples.max()) if seq_length else None)
        labels = shape if self.labels_tokens else [batch_size, *self.label_ids.shape[1:]]
        return {**{name: (np.int32, shape) for name in ("input_ids", "input_mask", "segment_ids")},
                "label_ids": (self.label_ids.dtype, labels)}


class RowsConfig(NamedTuple):
    """How examples become rows."""
    tokenizer: TokenizerConfig
    max_seq_length: int
    doc_stride: Optional[int] = None    # tokens between the starts of windows; None: long texts are truncated
    labels: Sequence[str] = ()          # by class index; () in a regression
    kind: str = CLASSES                 # of fine-tuning
    max_query_length: Optional[int] = None     # tokens of a question that stands before windows


def load_or_make_rows(examples: Sequence[Any], config: RowsConfig, cache_dir: str,
                      make: Callable[[Sequence[Any], RowsConfig], Rows]) -> Rows:
    """The rows of `examples`: read from `cache_dir` if they are there, else made by `make`; writes nothing.

    Raises UserError for an unreadable file there.
    """
    path = cache_path(examples, config, cache_dir)
    if os.path.exists(path):
        try:
            with open(path, "rb") as stream, zipfile.ZipFile(stream):
                pass  # np.load would leave a partial object for a truncated file, which raises later
            with np.load(path) as arrays:
                return Rows(**arrays)
        except (OSError, ValueError, TypeError, EOFError, zipfile.BadZipFile) as error:
            raise UserError("%s: cannot be read, remove it: %s" % (path, error))
    return make(examples, config)


def save(rows: Rows, path: str) -> None:
    """Writes rows where `load_or_make_rows` looks for them; an existing file is already correct."""
    if not os.path.exists(path):
        archive = io.BytesIO()  # on a full disk, np.savez would leave a partial object, which raises later
        np.savez(archive, **rows._asdict())
        with files.atomic_write(path) as stream:
            stream.write(archive.getbuffer())


def cache_path(examples: Sequence[Any], config: RowsConfig, cache_dir: str) -> str:
    """Where the rows of these very examples are kept."""
    return os.path.join(cache_dir, "%s.npz" % key(examples, config))


def key(examples: Sequence[Any], config: RowsConfig) -> str:
    """A hash of everything that the rows of these examples depend on, the vocabulary included: 32 hexadecimal
    digits. An example's id, its last field, has no influence."""
    tokenizer = config.tokenizer
    of_kind = [] if config.kind == CLASSES else [config.kind, config.max_query_length]
    digest = hashlib.sha256(json.dumps([
        FORMAT_VERSION, files.sha256_of_file(tokenizer.vocabulary_file), tokenizer.do_lower_case,
        config.max_seq_length, config.doc_stride, list(config.labels), *of_kind]).encode("utf-8"))
    for example in examples:
        digest.update(json.dumps(example[:-1]).encode("utf-8"))
    return digest.hexdigest()[:32]


def make_rows(examples: Sequence[Example], config: RowsConfig) -> Rows:
    """Tokenizes what is to be classified; with a stride a text longer than max_seq_length becomes several
    rows."""
    tokenizer = load_tokenizer(config.tokenizer)
    index = {label: number for number, label in enumerate(config.labels)}
    input_ids: List[np.ndarray] = []
    segment_ids: List[np.ndarray] = []
    example_numbers: List[int] = []
    for number, example in enumerate(examples):
        if config.doc_stride is None:
            packed = [pack_pair(tokenizer, example.text_a, example.text_b, config.max_seq_length)]
            input_ids.append(packed[0].input_ids)
            segment_ids.append(packed[0].segment_ids)
        else:
            ids, size = tokenizer.encode(example.text_a).ids, config.max_seq_length - 2
            packed = [np.concatenate([[tokenizer.vocabulary.cls], ids[begin:begin + size],
                                      [tokenizer.vocabulary.sep]])
                      for begin in begins_of_windows(len(ids), size, config.doc_stride)]
            input_ids += packed
            segment_ids += [np.zeros_like(ids) for ids in packed]
        example_numbers += [number] * len(packed)
    labels = [index.get(example.label, 0) if index else float(example.label or 0) for example in examples]
    return join_rows(input_ids, segment_ids, example_numbers,
                     np.array(labels, np.int32 if index else np.float32)[example_numbers])


def join_rows(input_ids: Sequence[np.ndarray], segment_ids: Sequence[np.ndarray],
              example_numbers: Sequence[int], label_ids: np.ndarray, **more: np.ndarray) -> Rows:
    """Rows of the ids of each, one behind the other; the rest as in `Rows`."""
    return Rows(np.concatenate(input_ids).astype(np.int32), np.concatenate(segment_ids).astype(np.int32),
                np.cumsum([0] + [len(ids) for ids in input_ids]), np.array(example_numbers, np.int32),
                label_ids, **more)


def rows_of_windows(windows: Sequence[Window], example_numbers: Sequence[int], label_ids: np.ndarray) -> Rows:
    """A row for each window, with the characters of its tokens."""
    return join_rows([window.input_ids for window in windows], [window.segment_ids for window in windows],
                     example_numbers, label_ids, spans=np.concatenate([window.spans for window in windows]))
