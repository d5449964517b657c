"""Documents → samples: one function that names every decision in its order, and the settings it takes."""
import hashlib
from dataclasses import dataclass
from typing import Callable, Iterator, NamedTuple, Optional, Tuple

import numpy as np

from etl.documents import Document
from etl.masking import (PERMUTED, Words, apply_mask, choose_permutation, choose_replacements, choose_words, find_words,
                         num_to_predict)
from etl.segments import SegmentPair, TokenizedDocument, break_giant_words, choose_split, pack, split_and_swap
from etl.tokenization import Vocabulary
from etl.words import Segmenter, mark_word_starts

PARTS = ("train", "eval")
MASKINGS = ("whole_word", "ngram", "token")
SENTENCE_OBJECTIVES = ("order", "next", "none")
LABELS = ("plain", "albert_zh")

# (rng, most tokens) -> (int32 token ids, bool word starts) of another document, or None when there is none.
DrawSegment = Callable[[np.random.Generator, int], Optional[Tuple[np.ndarray, np.ndarray]]]


@dataclass(frozen=True)
class InstanceConfig:
    """All that decides what samples a document gives. Names and defaults are those of BERT's and ALBERT's tools.

    Attributes:
      max_seq_length: tokens of a sample, [CLS] and [SEP] included.
      max_predictions_per_seq: slots for predicted tokens.
      masked_lm_prob: share of tokens to predict.
      short_seq_prob: chance that a copy of a document is packed to a random shorter length.
      dupe_factor: copies of a document, each split and masked anew.
      masking: whole_word, ngram (runs of up to `ngram` whole words) or token.
      masked_lm_labels: plain, or albert_zh, which labels a Han character inside a word with its ## twin.
      do_permutation: shuffles as many further tokens as are masked among themselves, and predicts them, too.
      sentence_objective: order (consecutive segments, half of them swapped), next (half of the second segments are from
        another document) or none (one segment).
    """
    max_seq_length: int = 512
    max_predictions_per_seq: int = 77
    masked_lm_prob: float = 0.15
    short_seq_prob: float = 0.1
    dupe_factor: int = 10
    random_seed: int = 12345
    masking: str = "whole_word"
    ngram: int = 3
    masked_lm_labels: str = "plain"
    do_permutation: bool = False
    sentence_objective: str = "order"

    def __post_init__(self):
        _require(8 <= self.max_seq_length, "max_seq_length", self.max_seq_length, "at least 8")
        _require(1 <= self.max_predictions_per_seq <= self.max_seq_length, "max_predictions_per_seq",
                 self.max_predictions_per_seq, "in 1..max_seq_length, which is %d" % self.max_seq_length)
        _require(0 < self.masked_lm_prob < 1, "masked_lm_prob", self.masked_lm_prob, "in (0, 1)")
        _require(0 <= self.short_seq_prob <= 1, "short_seq_prob", self.short_seq_prob, "in [0, 1]")
        _require(self.dupe_factor >= 1, "dupe_factor", self.dupe_factor, "at least 1")
        _require(self.ngram >= 1, "ngram", self.ngram, "at least 1")
        _require(self.masking in MASKINGS, "masking", self.masking, "one of " + ", ".join(MASKINGS))
        _require(self.masked_lm_labels in LABELS, "masked_lm_labels", self.masked_lm_labels,
                 "one of " + ", ".join(LABELS))
        _require(self.sentence_objective in SENTENCE_OBJECTIVES, "sentence_objective", self.sentence_objective,
                 "one of " + ", ".join(SENTENCE_OBJECTIVES))

    @property
    def budget(self) -> int:
        """Tokens of text that fit beside [CLS] and the [SEP]s."""
        return self.max_seq_length - (2 if self.sentence_objective == "none" else 3)

    @property
    def longest_word(self) -> int:
        """Tokens of a word; what is longer counts as several (see `break_giant_words`)."""
        return self.budget // 3


class Instance(NamedTuple):
    """One sample, not yet padded.

    Attributes:
      input_ids: int32 [length], masked.
      word_starts: bool [length]; [CLS] and [SEP] count as words.
      first_length: tokens of `[CLS] a [SEP]`; the rest is the second segment.
      masked_lm_positions, masked_lm_ids: int32 [predictions], ascending positions, and what stood there.
      masked_lm_kinds: int8 [predictions], masking.KEPT, MASKED, RANDOM or PERMUTED.
      label: 1 when the segments are swapped, or the second is random.
    """
    input_ids: np.ndarray
    word_starts: np.ndarray
    first_length: int
    masked_lm_positions: np.ndarray
    masked_lm_ids: np.ndarray
    masked_lm_kinds: np.ndarray
    label: int


def rng_for(seed: int, *parts: object) -> np.random.Generator:
    """Random numbers that depend on the seed and on what they are for, never on who asks or when."""
    digest = hashlib.blake2b(repr((seed,) + parts).encode("utf-8"), digest_size=16).digest()
    return np.random.Generator(np.random.PCG64(int.from_bytes(digest, "little")))


def part_of(document: Document, seed: int, eval_fraction: float) -> str:
    """Which part a document belongs to, by hash of its text: that share of documents is held out."""
    return "eval" if rng_for(seed, document.identity, "eval").random() < eval_fraction else "train"


def tokenize_document(document: Document, tokenizer, segmenter: Segmenter) -> TokenizedDocument:
    """Token ids and word starts of a document. Words are found in the text as it stands, before lower-casing.

    They are jieba's, but for cuts inside what the tokenizer knows to be one word: jieba takes each letter with an accent alone.
    """
    encoding = tokenizer.encode_sentences(document.sentences)
    begins = np.cumsum([0] + [len(sentence) + 1 for sentence in document.sentences])
    sentence_starts = np.unique(np.searchsorted(encoding.offsets, begins))[:-1]    # one of control characters only is none
    word_starts = mark_word_starts(encoding.offsets, segmenter.word_offsets("\n".join(document.sentences)))
    word_starts &= tokenizer.may_begin_word(encoding.ids)
    word_starts[sentence_starts] = True
    return TokenizedDocument(encoding.ids, word_starts, sentence_starts.astype(np.int32))


def instances_from_document(document: TokenizedDocument, identity: Tuple[object, ...], copy: int,
                            config: InstanceConfig, vocabulary: Vocabulary,
                            draw_segment: Optional[DrawSegment] = None) -> Iterator[Instance]:
    """The samples of one copy of a document, in reading order; none when it is too short for two segments.

    Args:
      identity: what the random numbers depend on besides the seed and the copy.
      draw_segment: gives text of another document; wanted by the objective "next" alone.
    """
    rng = rng_for(config.random_seed, identity, copy)
    for pair in _segment_pairs(document, config, rng, draw_segment):
        yield mask_pair(pair, config, vocabulary, rng)


def mask_pair(pair: SegmentPair, config: InstanceConfig, vocabulary: Vocabulary, rng: np.random.Generator) -> Instance:
    """Joins the segments as `[CLS] a [SEP] b [SEP]` and masks them."""
    first_length = len(pair.a_ids) + 2
    length = first_length + (len(pair.b_ids) + 1 if len(pair.b_ids) else 0)
    token_ids, word_starts = np.full(length, vocabulary.sep, np.int32), np.ones(length, bool)
    token_ids[0] = vocabulary.cls
    token_ids[1:first_length - 1], word_starts[1:first_length - 1] = pair.a_ids, pair.a_word_starts
    if len(pair.b_ids):
        token_ids[first_length:-1], word_starts[first_length:-1] = pair.b_ids, pair.b_word_starts
    words = _maskable_words(pair, first_length, config.masking)
    limit = _limit(words, len(token_ids), config)
    ngram = config.ngram if config.masking == "ngram" else 1
    positions = choose_words(words, limit, rng, ngram)
    replacements, kinds = choose_replacements(token_ids[positions], vocabulary.mask, vocabulary.replaceable_ids, rng)
    if config.do_permutation:
        room = min(limit, config.max_predictions_per_seq - len(positions))
        permuted = choose_words(words, room, rng, ngram, taken_positions=positions)
        order = np.argsort(np.concatenate([positions, permuted]))
        positions = np.concatenate([positions, permuted])[order]
        replacements = np.concatenate([replacements, choose_permutation(token_ids[permuted], rng)])[order]
        kinds = np.concatenate([kinds, np.full(len(permuted), PERMUTED, np.int8)])[order]
    labels = token_ids[positions]
    if config.masked_lm_labels == "albert_zh":
        labels = np.where(word_starts[positions], labels, vocabulary.continued_ids[labels])
    return Instance(apply_mask(token_ids, positions, replacements), word_starts, first_length, positions, labels, kinds,
                    pair.label)


def _segment_pairs(document: TokenizedDocument, config: InstanceConfig, rng: np.random.Generator,
                   draw_segment: Optional[DrawSegment]) -> Iterator[SegmentPair]:
    budget = config.budget
    document = document._replace(word_starts=break_giant_words(document.word_starts, config.longest_word))
    shortened = rng.random() < config.short_seq_prob
    target = 2 + int(rng.random() * (budget - 1)) if shortened else budget
    for chunk in pack(document, target, budget):
        if config.sentence_objective == "none":
            yield split_and_swap(document, chunk, chunk.end, is_swapped=False)
            continue
        split = choose_split(chunk, document.word_starts, rng.random())
        draw = rng.random()
        if not split:
            continue
        if config.sentence_objective == "order":
            yield split_and_swap(document, chunk, split, is_swapped=draw < 0.5)
        elif draw_segment:
            yield from _next_pairs(split_and_swap(document, chunk, split, is_swapped=False), draw, budget, rng,
                                   draw_segment)


def _next_pairs(pair: SegmentPair, draw: float, budget: int, rng: np.random.Generator, draw_segment: DrawSegment
                ) -> Iterator[SegmentPair]:
    """The pair as it is, or each half before a random segment. A third of the draws, at two samples each, makes half
    of all samples random, and no text is lost."""
    halves = [(pair.a_ids, pair.a_word_starts), (pair.b_ids, pair.b_word_starts)]
    drawn = [draw_segment(rng, budget - len(ids)) for ids, _ in halves] if draw < 1 / 3 else []
    others = [other for other in drawn if other is not None]
    if len(others) < 2:
        yield pair
    else:
        for half, other in zip(halves, others):
            yield SegmentPair(*half, *other, label=1)


def _maskable_words(pair: SegmentPair, first_length: int, masking: str) -> Words:
    starts = [pair.a_word_starts, pair.b_word_starts]
    if masking == "token":                     # each token is a word of its own
        starts = [np.ones_like(segment) for segment in starts]
    return find_words((1, starts[0]), (first_length, starts[1]))


def _limit(words: Words, num_tokens: int, config: InstanceConfig) -> int:
    """Most tokens to mask; a short sample of long words predicts one of them all the same."""
    limit = num_to_predict(num_tokens, config.masked_lm_prob, config.max_predictions_per_seq)
    return max(limit, min(int(words.lengths.min()), config.max_predictions_per_seq))


def _require(holds: bool, field: str, got: object, wanted: str) -> None:
    if not holds:
        raise ValueError("%s must be %s, got %s" % (field, wanted, got))
