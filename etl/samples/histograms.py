"""Statistics for the report of a build, counted while samples are made: {name: {value: count}}."""
import hashlib
from collections import Counter
from typing import Any, Dict, Iterable, Mapping

import numpy as np

from etl.samples.instances import Instances
from etl.samples.segments import TokenizedDocument
from etl.text.documents import Document

NAMES = (
    "lengths", "masked_percents", "masked_positions", "labels",     # of samples
    "word_lengths",                                                 # in tokens, of documents
    "words", "unknown_texts")                                       # of some documents
TEXT_NAMES = ("words", "unknown_texts")        # whose values are not numbers


class Histograms:
    """Counts by name, each a Counter; `words` and `unknown_texts` for a share of the documents, by hash of
    their text."""

    def __init__(self, word_share: float = 1.0) -> None:
        self.counts: Dict[str, Counter] = {name: Counter() for name in NAMES}
        self._word_share = word_share

    def add_samples(self, instances: Instances) -> None:
        """Counts a batch of samples."""
        is_slot = np.arange(instances.masked_lm_ids.shape[1]) < instances.num_predictions[:, None]
        self._add("lengths", instances.lengths)
        self._add("masked_percents",
                  np.rint(100 * instances.num_predictions / instances.lengths).astype(np.int64))
        self._add("masked_positions", instances.masked_lm_positions[is_slot])
        self._add("labels", instances.labels)

    def add_document(self, document: Document, tokenized: TokenizedDocument, tokenizer: Any) -> None:
        """Counts a document's words."""
        edges = np.append(np.flatnonzero(tokenized.word_starts), len(tokenized.ids))
        self._add("word_lengths", np.diff(edges))
        if int.from_bytes(hashlib.blake2b(document.identity).digest()[:8],
                          "big") >= self._word_share * (1 << 64):
            return
        vocabulary = tokenizer.vocabulary
        tokens = [token.replace("##", "").lstrip("▁")
                  for token in map(vocabulary.tokens.__getitem__, tokenized.ids.tolist())]
        cuts = edges.tolist()
        self.counts["words"].update("".join(tokens[begin:end]) for begin, end in zip(cuts, cuts[1:]))
        if (tokenized.ids == vocabulary.unk).any():
            self.counts["unknown_texts"].update(_unknown_texts(document, tokenizer))

    def to_json(self) -> Dict[str, Dict[str, int]]:
        """The same in JSON's types; names of values are strings there."""
        return {name: {str(value): count for value, count in counts.items()}
                for name, counts in self.counts.items()}

    def _add(self, name: str, values: np.ndarray) -> None:
        found = np.bincount(values)
        self.counts[name].update({value: int(found[value]) for value in np.flatnonzero(found).tolist()})


def _unknown_texts(document: Document, tokenizer: Any) -> Iterable[str]:
    """The text for which the tokenizer gives [UNK]."""
    text = "\n".join(document.sentences)
    encoding = tokenizer.encode_sentences(document.sentences)
    for place in np.flatnonzero(encoding.ids == tokenizer.vocabulary.unk):
        yield text[encoding.offsets[place]:encoding.ends[place]]


def sum_histograms(parts: Iterable[Mapping[str, Mapping[str, int]]]) -> Dict[str, Counter]:
    """Adds up outputs of `Histograms.to_json`; numeric values are int again."""
    totals: Dict[str, Counter] = {name: Counter() for name in NAMES}
    for part in parts:
        for name, counts in part.items():
            totals[name].update({value if name in TEXT_NAMES else int(value): count
                                 for value, count in counts.items()})
    return totals
