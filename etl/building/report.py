"""The report of a build, `report.html` beside its manifest: to be inspected before training."""
import itertools
import os
from collections import Counter
from typing import Any, Dict, List, Mapping, Sequence, Tuple

import numpy as np

from etl.records.examples import deserialize_example, read_frames
from etl.records.manifest import Manifest
from etl.reports.charts import Html, bar_chart, histogram
from etl.reports.page import Section, Token, beside, facts, page, samples, table, write
from etl.samples.instances import LABEL_MEANINGS
from etl.text.tokenization import UNK, load_tokenizer

FILE_NAME = "report.html"

LONGEST_WORD_SHOWN = 12                        # tokens; longer ones count as that long
MOST_FREQUENT = 25
SAMPLES_SHOWN = 3


def write_report(folder: str, manifest: Manifest, histograms: Mapping[str, Counter]) -> None:
    """Writes the page.

    Args:
      manifest: of the build that lies in `folder`, with the tokenizer's files as they can be opened.
      histograms: as histograms.sum_histograms gives them.
    """
    count: Counter = Counter(manifest.counters)
    sections = [
        Section("Summary", [facts(_facts(manifest, count))]),
        Section("Samples", [beside(
            histogram(histograms["lengths"], "tokens", "samples",
                      "Lengths of samples, special tokens included."),
            *_labels(manifest, histograms["labels"]))]),
        Section("Masks", [
            beside(histogram(histograms["masked_percents"], "% of a sample's tokens to predict", "samples",
                             "Share of tokens to predict; short samples round to whole tokens."),
                   histogram(histograms["masked_positions"], "position", "predictions",
                             "Positions of predicted tokens: uniform, up to the lengths of the samples.")),
            _kinds(count)]),
        Section("Text", [
            beside(_documents(count),
                   histogram(_with_tail(histograms["word_lengths"]), "tokens", "words",
                             "Lengths of words; the last bar includes all longer ones.")),
            beside(
                _most_frequent({word: times for word, times in histograms["words"].items()
                                if len(word) > 1 and UNK not in word}, "words",
                               "Most frequent words of two or more characters; in a sample of large inputs."),
                _most_frequent(histograms["unknown_texts"], "unknown tokens",
                               "Text that the vocabulary lacks, in the same sample."))]),
        Section("Example records", [_samples(folder, manifest)]),
        Section("How it was made", [table(["flag", "value"], [
            (name, " ".join(value) if isinstance(value, (list, tuple)) else str(value))
            for name, value in sorted(manifest.flags.items()) if value is not None])]),
    ]
    write(os.path.join(folder, FILE_NAME), page("Pretraining samples", sections, subtitle=folder))


def _facts(manifest: Manifest, count: Counter) -> Sequence[Tuple[str, Any]]:
    sizes = [shard.bytes for shard in manifest.train + manifest.eval]
    size, places = sum(sizes) / 1e6, 1 if sum(sizes) >= 1e6 else 3
    num_samples = count["train_samples"] + count["eval_samples"]
    return [
        ("training samples", sum(shard.records for shard in manifest.train)),
        ("held out", sum(shard.records for shard in manifest.eval)),
        *((name, count[name]) for name in ("documents", "sentences", "words", "tokens")),
        ("unknown tokens", "{:.2%}".format(count["unknown_tokens"] / count["tokens"])),
        ("tokens to predict", "{:.1%}".format(count["predictions"] / count["sample_tokens"])),
        ("padding", "{:.1%}".format(1 - count["sample_tokens"] / (num_samples * manifest.max_seq_length))),
        ("cut inside a sentence", "{:.1%} of the samples".format(count["cut_samples"] / num_samples)),
        ("dropped as repeated", "{:,} samples".format(count["dropped_samples"])),
        ("size", "%.*f MB in %d shard%s" % (places, size, len(sizes), "s" * (len(sizes) > 1)))]


def _labels(manifest: Manifest, labels: Counter) -> List[Html]:
    """The chart of the labels, if the sentence objective has any."""
    names = LABEL_MEANINGS.get(manifest.flags["sentence_objective"])
    if not names:
        return []
    shares = [100 * labels[value] / sum(labels.values()) for value in range(len(names))]
    return [bar_chart(names, {"% of samples": shares}, "second segment, % of samples",
                      "Relation of the second segment to the first: %s in half of the samples." % names[1])]


def _kinds(count: Counter) -> Html:
    kinds = [("[MASK]", "masked"), ("kept", "kept"), ("random", "random"), ("permuted", "permuted")]
    shown = [(name, 100 * count[kind + "_predictions"] / max(1, count["predictions"]))
             for name, kind in kinds]
    return bar_chart([name for name, _ in shown], {"%": [share for _, share in shown]},
                     "input at predicted positions, %",
                     "The rule: 80 % [MASK], 10 % kept, 10 % random; permuted ones are additional.")


def _documents(count: Counter) -> Html:
    shown = [("training", count["train_documents"]), ("held out", count["eval_documents"]),
             ("of both, too short: dropped", count["documents_too_short"]),
             ("unusable: dropped", count["bad_records"])]
    return bar_chart([name for name, _ in shown], {"documents": [number for _, number in shown]}, "documents",
                     "Use of the documents; the unusable ones are in dead_letters.")


def _with_tail(lengths: Mapping[int, int]) -> Dict[int, int]:
    found: Counter = Counter()
    for length, count in lengths.items():
        found[min(length, LONGEST_WORD_SHOWN)] += count
    return found


def _most_frequent(counts: Mapping[str, int], name: str, caption: str) -> Html:
    found = sorted(counts.items(), key=lambda pair: (-pair[1], pair[0]))[:MOST_FREQUENT]
    return bar_chart([text for text, _ in found], {name: [count for _, count in found]}, name, caption)


def _samples(folder: str, manifest: Manifest) -> Html:
    tokenizer = load_tokenizer(manifest.tokenizer)
    path = os.path.join(folder, manifest.train[0].path)
    with open(path, "rb") as stream:
        records = [deserialize_example(record)
                   for record in itertools.islice(read_frames(stream, path), SAMPLES_SHOWN)]
    names = LABEL_MEANINGS.get(manifest.flags["sentence_objective"], ("one segment",))
    return samples([("%s, record %d: %s" % (manifest.train[0].path, number,
                                            names[int(values["next_sentence_labels"][0])]),
                     _tokens(values, tokenizer)) for number, values in enumerate(records)])


def _tokens(values: Mapping[str, np.ndarray], tokenizer: Any) -> List[Token]:
    tokens = tokenizer.vocabulary.tokens
    ids = values["input_ids"][:int(values["input_mask"].sum())].copy()
    is_real = values["masked_lm_weights"] > 0
    positions, seen = values["masked_lm_positions"][is_real], {}
    for position, label in zip(positions.tolist(), values["masked_lm_ids"][is_real].tolist()):
        seen[position], ids[position] = tokens[ids[position]], label
    starts = values.get("token_boundary", tokenizer.may_begin_word(ids))
    return [Token(tokens[index], seen.get(place), bool(starts[place]))
            for place, index in enumerate(ids.tolist())]
