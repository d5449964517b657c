"""Prints samples in readable form: words, masked tokens and how they are masked, labels.

Words are separated by spaces if the record has them (--token_boundary builds), otherwise each Han character
is a word. A predicted token is shown as
  [北]   masked: the model sees [MASK]      [北→广] random: it sees 广      [北=] kept: it sees 北 itself
Two of them in one word are joined by a dot: [北]·[京=].

  python -m etl.show output/pretrain_data/tf_examples-00000-of-00001.tfrecord --limit 3
"""
import os
from dataclasses import dataclass
from typing import Dict, Iterator, Optional, Sequence, Tuple

import numpy as np

from etl.common.command_line import UserError, flag, run
from etl.common.files import expand
from etl.records import manifest
from etl.records.examples import deserialize_example, read_frames
from etl.samples.instances import LABEL_MEANINGS
from etl.text.tokenization import Tokenizer, TokenizerConfig, load_tokenizer


@dataclass(frozen=True)
class ShowConfig:
    """The flags of this command."""
    files: Tuple[str, ...] = flag(("output/pretrain_data/tf_examples-*.tfrecord",),
                                  "TFRecord files: names or quoted globs", positional=True)
    vocab_file: Optional[str] = flag(None, "vocabulary of the ids; default: the one beside the manifest")
    limit: int = flag(5, "samples to print from each file")
    skip: int = flag(0, "samples to skip at the start of each file")

    def __post_init__(self) -> None:
        if self.limit < 1:
            raise ValueError("limit must be at least 1, got %d" % self.limit)
        if self.skip < 0:
            raise ValueError("skip must be at least 0, got %d" % self.skip)


def main(argv: Optional[Sequence[str]] = None) -> int:
    return run("etl.show", __doc__, ShowConfig, show, argv)


def show(config: ShowConfig) -> None:
    """Prints the samples selected by the flags."""
    for path in expand(config.files, "files"):
        build = _manifest_of(path)
        used = TokenizerConfig(config.vocab_file) if config.vocab_file else build and build.tokenizer
        if not used:
            raise UserError(
                "%s: no manifest beside it names its vocabulary; give --vocab_file" % path)
        tokenizer = load_tokenizer(used)
        objective = build.flags.get("sentence_objective") if build else None
        number = None
        for number, record in _records(path, config.skip, config.limit):
            try:
                values = deserialize_example(record)
                text = render(values, tokenizer, objective)
            except (ValueError, KeyError, IndexError) as error:
                raise UserError("%s: record %d is not a pretraining sample: %r" % (path, number, error))
            print("%s: record %d\n%s\n" % (path, number, text))
        if number is None:
            print("%s: no record%s\n" % (path, " after the first %d" % config.skip if config.skip else ""))


def render(values: Dict[str, np.ndarray], tokenizer: Tokenizer, objective: Optional[str] = None) -> str:
    """A record's features as text: a summary line, and a line for each segment.

    Args:
      objective: the sentence objective of the build, which says what the label means; None if unknown.
    """
    length = int(values["input_mask"].sum())
    ids = values["input_ids"][:length].copy()
    tokens = [tokenizer.vocabulary.tokens[index] for index in ids]
    predicted = values["masked_lm_weights"] > 0
    for position, label in zip(values["masked_lm_positions"][predicted], values["masked_lm_ids"][predicted]):
        tokens[position] = _marked(tokenizer.vocabulary.tokens[label], tokens[position])
        ids[position] = label
    starts = (values["token_boundary"][:length] if "token_boundary" in values
              else tokenizer.may_begin_word(ids))
    second = int(values["segment_ids"][:length].sum())
    label = int(values["next_sentence_labels"][0])
    meaning = " (%s)" % LABEL_MEANINGS[objective][label] if objective in LABEL_MEANINGS else ""
    lines = ["  %d tokens, %d predicted, sentence label %d%s" % (length, predicted.sum(), label, meaning)]
    places = set(values["masked_lm_positions"][predicted].tolist())
    for name, begin, end in (("A", 0, length - second), ("B", length - second, length)):
        if begin < end:
            parts = [(" " if starts[at] else "·" if {at - 1, at} <= places else "") + tokens[at]
                     for at in range(begin, end)]
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


def _manifest_of(path: str) -> Optional[manifest.Manifest]:
    """The manifest of the build that a shard belongs to, if there is one."""
    folder = os.path.dirname(path)
    # the shards of eval/ lie one folder below the manifest
    for candidate in (folder, os.path.dirname(folder)):
        if os.path.exists(os.path.join(candidate, manifest.FILE_NAME)):
            return manifest.read(candidate)
    return None


if __name__ == "__main__":
    raise SystemExit(main())
