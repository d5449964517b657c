"""Prints samples so that a person can judge them: words, what is masked and how, the labels.

Words are parted by blanks where the record knows them (--token_boundary builds), else tokens are. A predicted token is shown as
  [北]   masked: the model sees [MASK]      [北→广] random: it sees 广      [北=] kept: it sees 北 itself

  python -m etl.show output/pretrain_data/tf_examples-00000-of-00001.tfrecord --limit 3
"""
import os
from dataclasses import dataclass
from typing import Dict, Iterator, Optional, Sequence, Tuple

import numpy as np

from etl import manifest
from etl.command_line import UserError, flag, run
from etl.examples import decode_example, read_frames
from etl.files import expand
from etl.tokenization import TokenizerConfig, Vocabulary, load_tokenizer


@dataclass(frozen=True)
class ShowConfig:
    """The flags of this command."""
    files: Tuple[str, ...] = flag(("output/pretrain_data/tf_examples-*.tfrecord",), "TFRecord files: names or quoted globs",
                                  positional=True)
    vocab_file: Optional[str] = flag(None, "vocabulary of the ids; without it the one beside the manifest")
    limit: int = flag(5, "samples to print from each file")
    skip: int = flag(0, "samples to pass over first in each file")


def main(argv: Optional[Sequence[str]] = None) -> int:
    return run("etl.show", __doc__, ShowConfig, show, argv)


def show(config: ShowConfig) -> None:
    """Prints the samples that the flags ask for."""
    for path in expand(config.files, "files"):
        vocabulary = _vocabulary(path, config.vocab_file)
        for number, record in _records(path, config.skip, config.limit):
            try:
                values = decode_example(record)
                text = render(values, vocabulary)
            except (ValueError, KeyError, IndexError) as error:
                raise UserError("%s: record %d is no pretraining sample: %r" % (path, number, error))
            print("%s: record %d\n%s\n" % (path, number, text))


def render(values: Dict[str, np.ndarray], vocabulary: Vocabulary) -> str:
    """A record's features as text: a line with the facts, a line for each segment."""
    length = int(values["input_mask"].sum())
    tokens = [vocabulary.tokens[index] for index in values["input_ids"][:length]]
    predicted = values["masked_lm_weights"] > 0
    for position, label in zip(values["masked_lm_positions"][predicted], values["masked_lm_ids"][predicted]):
        tokens[position] = _marked(vocabulary.tokens[label], tokens[position])
    boundary = values.get("token_boundary", np.ones(length, dtype=np.int64))[:length]
    second = int(values["segment_ids"][:length].sum())
    lines = ["  %d tokens, %d predicted, sentence label %d" % (length, predicted.sum(), values["next_sentence_labels"][0])]
    for name, begin, end in (("A", 0, length - second), ("B", length - second, length)):
        if begin < end:
            parts = [(" " if starts else "") + token for token, starts in zip(tokens[begin:end], boundary[begin:end])]
            lines.append("  %s: %s" % (name, "".join(parts).strip()))
    return "\n".join(lines)


def _marked(label: str, seen: str) -> str:
    if seen == "[MASK]":
        return "[%s]" % label
    return "[%s=]" % label if seen == label else "[%s→%s]" % (label, seen)


def _records(path: str, skip: int, limit: int) -> Iterator[Tuple[int, bytes]]:
    with open(path, "rb") as stream:
        for number, record in enumerate(read_frames(stream, path)):
            if number >= skip + limit:
                return
            if number >= skip:
                yield number, record


def _vocabulary(path: str, vocab_file: Optional[str]) -> Vocabulary:
    if vocab_file:
        return load_tokenizer(TokenizerConfig(vocab_file)).vocabulary
    folder = os.path.dirname(path)
    for candidate in (folder, os.path.dirname(folder)):    # the shards of eval/ lie one folder below the manifest
        if os.path.exists(os.path.join(candidate, manifest.FILE_NAME)):
            return load_tokenizer(manifest.read(candidate).tokenizer).vocabulary
    raise UserError("%s: no manifest beside it says which vocabulary it was made with; give --vocab_file" % path)


if __name__ == "__main__":
    raise SystemExit(main())
