"""Finds and checks files of pretraining records. Knows no TensorFlow.

Two kinds of input: the folder that `etl.build_pretrain` writes, whose manifest describes everything, and
TFRecord files of older tools without a description: their lengths and vocabulary are given by flags and
checked against the records.
"""
import itertools
import math
import os
from dataclasses import dataclass
from typing import Dict, Iterator, Mapping, Optional, Sequence, Tuple

import numpy as np

from etl.common import files
from etl.common.command_line import UserError
from etl.records import examples, manifest
from etl.records.examples import Feature
from etl.text.tokenization import TokenizerConfig, load_tokenizer

NEVER_ALL_ZERO = ("input_mask", "masked_lm_weights")   # features that mark which of the others' values count


@dataclass(frozen=True)
class PretrainingData:
    """Records to train on and records held out from training.

    Attributes:
      source: what the user named, for messages.
      train_files, eval_files: paths of TFRecord files, in order; eval_files may be empty.
      train_counts, eval_counts: records in each of these files.
      max_seq_length, max_predictions_per_seq: lengths of the features of every record.
      tokenizer, vocab_size: what the ids mean.
      has_sentence_order: whether next_sentence_labels is meaningful; a build of single segments labels all
        with 0.
      tells_cuts: whether held-out records hold examples.CUT_INSIDE_SENTENCE.
      manifest_sha256: of the build's manifest; None for records of older tools.
    """
    source: str
    train_files: Tuple[str, ...]
    eval_files: Tuple[str, ...]
    train_counts: Tuple[int, ...]
    eval_counts: Tuple[int, ...]
    max_seq_length: int
    max_predictions_per_seq: int
    tokenizer: TokenizerConfig
    vocab_size: int
    has_sentence_order: bool = True
    tells_cuts: bool = False
    manifest_sha256: Optional[str] = None

    @property
    def num_train_records(self) -> int:
        return sum(self.train_counts)

    @property
    def num_eval_records(self) -> int:
        return sum(self.eval_counts)

    @property
    def features(self) -> Tuple[Feature, ...]:
        """The features of every record; those of older tools may have more, which are ignored."""
        return examples.pretraining_features(self.max_seq_length, self.max_predictions_per_seq)

    @property
    def eval_features(self) -> Tuple[Feature, ...]:
        """Those of held-out records."""
        return self.features + ((examples.CUT_INSIDE_SENTENCE,) if self.tells_cuts else ())


def from_build(folder: str, max_seq_length: Optional[int] = None,
               max_predictions_per_seq: Optional[int] = None) -> PretrainingData:
    """Reads the manifest of a build and checks that its shards are complete.

    Raises UserError for an unfinished build, a folder without a build, a missing shard or one of another
    size, and for a given length that is not the manifest's.
    """
    path = os.path.join(folder, manifest.FILE_NAME)
    if not os.path.exists(path) and os.path.isdir(os.path.join(folder, ".work")):
        raise UserError("--input_file: %s holds an unfinished build: run the same python -m "
                        "etl.build_pretrain again to resume it" % folder)
    build = manifest.read(folder)
    for name, given in (("max_seq_length", max_seq_length),
                        ("max_predictions_per_seq", max_predictions_per_seq)):
        if given not in (None, getattr(build, name)):
            raise UserError("--%s is %d, but the records have %d, says %s"
                            % (name, given, getattr(build, name), path))
    has_sentence_order = build.flags.get("sentence_objective") != "none"
    vocabulary = build.tokenizer.vocabulary_file
    if files.sha256_of_file(vocabulary) != build.vocab_sha256:
        raise UserError("%s: not the vocabulary that the records were made with; its SHA-256 is "
                        "not that of %s" % (vocabulary, path))
    for shard in build.train + build.eval:
        _check_size(os.path.join(folder, shard.path), shard.bytes)
    return PretrainingData(
        source=folder,
        train_files=tuple(os.path.join(folder, shard.path) for shard in build.train),
        eval_files=tuple(os.path.join(folder, shard.path) for shard in build.eval),
        train_counts=tuple(shard.records for shard in build.train),
        eval_counts=tuple(shard.records for shard in build.eval),
        max_seq_length=build.max_seq_length,
        max_predictions_per_seq=build.max_predictions_per_seq,
        tokenizer=build.tokenizer,
        vocab_size=build.vocab_size,
        has_sentence_order=has_sentence_order,
        tells_cuts=has_sentence_order and "cut_samples" in build.counters,
        manifest_sha256=files.sha256_of_file(path))


def from_files(patterns: Sequence[str], eval_patterns: Sequence[str], max_seq_length: Optional[int],
               max_predictions_per_seq: Optional[int],
               tokenizer: Optional[TokenizerConfig]) -> PretrainingData:
    """Reads TFRecord files without a manifest, counts their records and checks the first one of each file.

    Raises UserError if a length or the vocabulary is not given, or a file or its first record is damaged or
    has other lengths.
    """
    missing = [flag for flag, value in (("--max_seq_length", max_seq_length), ("--vocab_file", tokenizer),
                                        ("--max_predictions_per_seq", max_predictions_per_seq))
               if value is None]
    train_files = files.expand_sets(patterns, "input_file")
    _require_records(train_files[0])  # first: for a text file, a message about these flags would not help
    if missing:
        raise UserError("--input_file names TFRecord files, which do not say how they were made: give %s%s"
                        % (", ".join(missing), _hint_at_build(train_files[0])))
    eval_files = files.expand_sets(eval_patterns, "eval_input_file") if eval_patterns else []
    features = examples.pretraining_features(max_seq_length, max_predictions_per_seq)
    vocab_size = len(load_tokenizer(tokenizer).vocabulary)
    return PretrainingData(
        source=" ".join(patterns),
        train_files=tuple(train_files),
        eval_files=tuple(eval_files),
        train_counts=tuple(_count(path, features, vocab_size) for path in train_files),
        eval_counts=tuple(_count(path, features, vocab_size) for path in eval_files),
        max_seq_length=max_seq_length,
        max_predictions_per_seq=max_predictions_per_seq,
        tokenizer=tokenizer,
        vocab_size=vocab_size)


def label_counts(paths: Sequence[str], data: PretrainingData, max_records: int) -> np.ndarray:
    """How often each token is a label of the masked LM in the first `max_records` records: int64
    [vocab_size]."""
    counts = np.zeros(data.vocab_size, dtype=np.int64)
    records = (found for path in paths for found in _records(path))
    for place, record in itertools.islice(records, max_records):
        values = check_record(record, data.features, data.vocab_size, place)
        np.add.at(counts, values["masked_lm_ids"][values["masked_lm_weights"] > 0], 1)
    return counts


def check_record(record: bytes, features: Sequence[Feature], vocab_size: int,
                 place: str) -> Mapping[str, np.ndarray]:
    """The values of a record. Raises UserError, beginning with `place`, for the first feature that is missing
    or has a wrong length or range.
    """
    limits = limits_of(features, vocab_size)
    try:
        values = examples.deserialize_example(record)
    except ValueError as error:
        raise UserError("%s: %s" % (place, error))
    for feature in features:
        if feature.name not in values:
            raise UserError("%s: feature %s is missing" % (place, feature.name))
        array = values[feature.name]
        if len(array) != feature.length:
            raise UserError("%s: feature %s holds %d values, wanted %d"
                            % (place, feature.name, len(array), feature.length))
        if (array.dtype.kind == "f") != (feature.dtype == examples.FLOAT):
            raise UserError("%s: feature %s is %s, wanted %s"
                            % (place, feature.name, array.dtype, feature.dtype))
        if feature.name in NEVER_ALL_ZERO and not array.any():
            raise UserError("%s: feature %s is all zero: there is nothing to learn from"
                            % (place, feature.name))
        limit = limits[feature.name]
        with np.errstate(invalid="ignore"):    # NaN is in no range
            wrong = array[~((array >= 0) & (array < limit))]
        if len(wrong):
            raise UserError("%s: feature %s must be in [0, %s), got %s"
                            % (place, feature.name, limit, wrong[0]))
    return values


def limits_of(features: Sequence[Feature], vocab_size: int) -> Dict[str, float]:
    """Exclusive upper bounds of each feature's values; none may be negative."""
    max_seq_length = {feature.name: feature.length for feature in features}["input_ids"]
    limits = {"input_ids": vocab_size, "masked_lm_ids": vocab_size, "masked_lm_positions": max_seq_length,
              "masked_lm_weights": math.inf}
    return {feature.name: limits.get(feature.name, 2) for feature in features}   # the others are flags


def check_all(paths: Sequence[str], features: Sequence[Feature], vocab_size: int) -> None:
    """Reads every record of every file and raises UserError for the first that is damaged or invalid."""
    for path in paths:
        for place, record in _records(path):
            check_record(record, features, vocab_size, place)


def _count(path: str, features: Sequence[Feature], vocab_size: int) -> int:
    number = 0
    for place, record in _records(path):
        if number == 0:                        # the others are checked as they are read
            check_record(record, features, vocab_size, place)
        number += 1
    if number == 0:
        raise UserError("%s: has no records" % path)
    return number


def _require_records(path: str) -> None:
    try:
        next(_records(path), None)
    except UserError as error:
        raise UserError("--input_file: %s; python -m etl.build_pretrain makes records from text" % error)


def _records(path: str) -> Iterator[Tuple[str, bytes]]:
    with open(path, "rb") as stream:
        for number, record in enumerate(examples.read_frames(stream, path)):
            yield "%s: record %d" % (path, number), record


def _check_size(path: str, wanted: int) -> None:
    if not os.path.isfile(path):
        raise UserError("%s: no such file, but the manifest lists it" % path)
    if os.path.getsize(path) != wanted:
        raise UserError("%s: %d bytes, but the manifest says %d: it was truncated or changed"
                        % (path, os.path.getsize(path), wanted))


def _hint_at_build(path: str) -> str:
    folder = os.path.dirname(path) or "."
    if os.path.exists(os.path.join(folder, manifest.FILE_NAME)):
        return "; or give the folder itself, --input_file %s: its manifest has these" % folder
    return ""
