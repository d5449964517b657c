"""Documents → samples: two functions that show every decision in order, and their settings."""
import functools
from dataclasses import dataclass
from typing import Any, Callable, Iterator, NamedTuple, Optional, Sequence, Tuple

import numpy as np

from etl.common.command_line import flag
from etl.samples.draws import rng_for, uniforms
from etl.samples.masking import (PERMUTED, Words, apply_mask, choose_permutation, choose_replacements,
                                 choose_runs, choose_words, find_words, num_to_predict)
from etl.samples.segments import (SegmentPair, TokenizedDocument, break_giant_words, choose_split, pack,
                                  find_endings, split_and_swap)
from etl.text.documents import Document, find_sentences
from etl.text.tokenization import Vocabulary, without_dropped
from etl.text.words import AnySegmenter, mark_word_starts

PARTS = ("train", "eval")
MASKINGS = ("whole_word", "ngram", "token")
SENTENCE_OBJECTIVES = ("order", "next", "none")
LABELS = ("plain", "albert_zh")
# By sentence objective: the meaning of labels 0 and 1 for the second segment.
LABEL_MEANINGS = {"order": ("in order", "swapped"), "next": ("the next", "random")}

# (rng, maximum tokens) -> (int32 token ids, bool word starts, whether a sentence is cut) of another document,
# or None if there is none.
DrawSegment = Callable[[np.random.Generator, int], Optional[Tuple[np.ndarray, np.ndarray, bool]]]


@dataclass(frozen=True)
class InstanceConfig:
    """Everything that determines a document's samples. Names and defaults are those of BERT's and ALBERT's
    tools."""
    max_seq_length: int = flag(512, "tokens per sample, [CLS] and [SEP] included")
    max_predictions_per_seq: Optional[int] = flag(
        None, "maximum number of tokens to predict per sample; default: masked_lm_prob * max_seq_length, "
        "twice that with do_permutation")
    masked_lm_prob: float = flag(0.15, "share of tokens to predict")
    short_seq_prob: float = flag(0.1, "chance that a copy of a document gets shorter samples")
    dupe_factor: int = flag(10, "copies of each document, each split and masked independently")
    random_seed: int = flag(12345, "another seed gives other samples")
    masking: str = flag("whole_word", "whole words, runs of whole words (ALBERT), or single tokens", MASKINGS)
    ngram: int = flag(3, "longest run of words with --masking ngram")
    masked_lm_labels: str = flag("plain", "albert_zh: ## on Han inside a word, as the released albert_zh "
                                 "heads were trained; for continuing those", LABELS)
    do_permutation: bool = flag(False, "shuffle as many other tokens as are masked, and predict them, too")
    token_boundary: bool = flag(False, "write the feature token_boundary, as Google's tool does")
    sentence_objective: str = flag(
        "order", "order: two consecutive segments, half of them swapped; next: half of the second segments "
        "from another document; none: one segment", SENTENCE_OBJECTIVES)

    def __post_init__(self) -> None:
        _require(8 <= self.max_seq_length, "max_seq_length", self.max_seq_length, "at least 8")
        _require(0 < self.masked_lm_prob < 1, "masked_lm_prob", self.masked_lm_prob, "in (0, 1)")
        _require(1 <= self.num_slots <= self.max_seq_length, "max_predictions_per_seq",
                 self.num_slots, "in 1..max_seq_length, which is %d" % self.max_seq_length)
        _require(0 <= self.short_seq_prob <= 1, "short_seq_prob", self.short_seq_prob, "in [0, 1]")
        _require(self.dupe_factor >= 1, "dupe_factor", self.dupe_factor, "at least 1")
        _require(self.ngram >= 1, "ngram", self.ngram, "at least 1")
        _require(self.masking in MASKINGS, "masking", self.masking, "one of " + ", ".join(MASKINGS))
        _require(self.masked_lm_labels in LABELS, "masked_lm_labels", self.masked_lm_labels,
                 "one of " + ", ".join(LABELS))
        _require(self.sentence_objective in SENTENCE_OBJECTIVES, "sentence_objective",
                 self.sentence_objective,
                 "one of " + ", ".join(SENTENCE_OBJECTIVES))

    @property
    def num_slots(self) -> int:
        """Slots for predicted tokens in each sample: `max_predictions_per_seq`, or what the share to predict
        needs."""
        if self.max_predictions_per_seq is not None:
            return self.max_predictions_per_seq
        # shuffled tokens are as many as masked ones
        share = self.masked_lm_prob * (2 if self.do_permutation else 1)
        return min(self.max_seq_length, max(1, int(round(share * self.max_seq_length))))

    @property
    def budget(self) -> int:
        """Tokens of text that fit besides [CLS] and the [SEP]s."""
        return self.max_seq_length - (2 if self.sentence_objective == "none" else 3)

    @property
    def longest_word(self) -> int:
        """Tokens of a word; longer ones count as several (see `break_giant_words`)."""
        return self.budget // 3


class Instances(NamedTuple):
    """Samples, padded with 0 to `max_seq_length` tokens and `num_slots` predictions.

    Attributes:
      input_ids: int32 [samples, tokens], masked.
      word_starts: bool [samples, tokens]; [CLS] and [SEP] count as words.
      lengths: int32 [samples], tokens without padding.
      first_lengths: int32 [samples], tokens of `[CLS] a [SEP]`; the rest is the second segment.
      masked_lm_positions, masked_lm_ids: int32 [samples, predictions], ascending positions, and the
        original tokens.
      masked_lm_kinds: int8 [samples, predictions], masking.KEPT, MASKED, RANDOM or PERMUTED.
      num_predictions: int32 [samples], predictions without padding.
      labels: int32 [samples], 1 if the segments are swapped, or the second is random.
      is_cut: bool [samples], whether a segment begins or ends inside a sentence.
    """
    input_ids: np.ndarray
    word_starts: np.ndarray
    lengths: np.ndarray
    first_lengths: np.ndarray
    masked_lm_positions: np.ndarray
    masked_lm_ids: np.ndarray
    masked_lm_kinds: np.ndarray
    num_predictions: np.ndarray
    labels: np.ndarray
    is_cut: np.ndarray


def part_of(document: Document, seed: int, eval_fraction: float) -> str:
    """The part of a document, by hash of its text: that share of documents is held out."""
    return "eval" if rng_for(seed, document.identity, "eval").random() < eval_fraction else "train"


def tokenize_document(document: Document, tokenizer: Any, segmenter: AnySegmenter) -> TokenizedDocument:
    """Token ids and word starts of a document. Words are found in the original text, before lower-casing, but
    without characters that give no token.

    They are jieba's, except for boundaries inside a word of the tokenizer: jieba treats each accented letter
    as a separate word. A line with several sentences counts as several.
    """
    encoding, text = tokenizer.encode_sentences(document.sentences), "\n".join(document.sentences)
    starts = np.searchsorted(encoding.offsets, find_sentences(text))
    ends = np.append(starts[1:], len(encoding.ids))
    has_tokens = starts < ends                 # one of only control characters is none
    sentence_starts = starts[has_tokens].astype(np.int32)
    visible, positions = without_dropped(text, tokenizer.strips_marks)
    word_offsets = segmenter.word_offsets(visible)
    if positions is not None:
        word_offsets = positions[word_offsets]
    word_starts = mark_word_starts(encoding.offsets, word_offsets)
    word_starts &= tokenizer.may_begin_word(encoding.ids)
    word_starts[sentence_starts] = True
    is_mark, is_closing = (table[encoding.ids] for table in (tokenizer.vocabulary.is_mark,
                                                             tokenizer.vocabulary.is_closing))
    return TokenizedDocument(encoding.ids, word_starts, sentence_starts, is_mark,
                             *find_endings(encoding.ids, sentence_starts, is_mark, is_closing))


def segment_pairs(document: TokenizedDocument, copies: int, config: InstanceConfig, rng: np.random.Generator,
                  draw_segment: Optional[DrawSegment] = None) -> Iterator[SegmentPair]:
    """The segments of a document's samples, copy after copy in reading order; none if it is too short for
    two.

    Args:
      draw_segment: returns text of another document; only for the objective "next".
    """
    budget = config.budget
    document = document._replace(word_starts=break_giant_words(document.word_starts, config.longest_word))
    in_pairs = config.sentence_objective != "none"
    packed = functools.lru_cache(2)(functools.partial(pack, document, budget=budget, in_pairs=in_pairs))
    for _ in range(copies):
        shortened = rng.random() < config.short_seq_prob
        target = 2 + int(rng.random() * (budget - 1)) if shortened else budget
        for chunk in packed(target):           # most copies have the same target
            if not in_pairs:
                yield split_and_swap(document, chunk, chunk.end, is_swapped=False)
                continue
            split = choose_split(document, chunk, rng.random())
            draw = rng.random()
            if not split:
                continue
            if config.sentence_objective == "order":
                yield split_and_swap(document, chunk, split, is_swapped=draw < 0.5)
            elif draw_segment:
                yield from _next_pairs(split_and_swap(document, chunk, split, is_swapped=False), draw, budget,
                                       rng, draw_segment)


def mask_pairs(pairs: Sequence[SegmentPair], seeds: np.ndarray, config: InstanceConfig,
               vocabulary: Vocabulary) -> Instances:
    """Joins the segments of each pair as `[CLS] a [SEP] b [SEP]` and masks them.

    Args:
      seeds: uint64 [pairs], the seeds of each sample's random numbers.
    """
    first_lengths = np.array([len(pair.a_ids) + 2 for pair in pairs], np.int32)
    lengths = first_lengths + np.array([len(pair.b_ids) + (len(pair.b_ids) > 0) for pair in pairs], np.int32)
    places = np.arange(config.max_seq_length)
    is_sep = (places == first_lengths[:, None] - 1) | (places == lengths[:, None] - 1)
    is_text = (places > 0) & (places < lengths[:, None]) & ~is_sep
    token_ids, word_starts = np.zeros(is_text.shape, np.int32), is_sep.copy()
    token_ids[is_text] = np.concatenate([ids for pair in pairs for ids in (pair.a_ids, pair.b_ids)])
    word_starts[is_text] = np.concatenate([starts for pair in pairs
                                           for starts in (pair.a_word_starts, pair.b_word_starts)])
    token_ids[is_sep] = vocabulary.sep
    token_ids[:, 0], word_starts[:, 0] = vocabulary.cls, True
    words = find_words(is_text if config.masking == "token" else word_starts,
                       is_text)    # "token": each is a separate word
    limits = _limits(words, lengths, config)

    def draw(purpose: int, places: np.ndarray) -> np.ndarray:
        samples, positions = np.divmod(places, config.max_seq_length)
        return uniforms(seeds[samples], purpose * config.max_seq_length + positions)

    def choose(purpose: int, limits: np.ndarray, is_taken: Optional[np.ndarray] = None) -> np.ndarray:
        runs = choose_runs(draw(purpose + 1, words.begins),
                           config.ngram) if config.masking == "ngram" else None
        return choose_words(words, limits, draw(purpose, words.begins), runs, is_taken)

    is_chosen = choose(0, limits)
    is_predicted = words.tokens_of(is_chosen)
    places = np.flatnonzero(is_predicted)
    kinds = np.zeros(token_ids.shape, np.int8)
    replacements, kinds[is_predicted] = choose_replacements(
        token_ids[is_predicted], vocabulary.mask, vocabulary.replaceable_ids, draw(2, places),
        draw(3, places))
    replaced = apply_mask(token_ids, is_predicted, replacements)
    if config.do_permutation:
        is_permuted = words.tokens_of(
            choose(4, np.minimum(limits, config.num_slots - is_predicted.sum(axis=1)),
                   is_chosen))
        moved = choose_permutation(token_ids[is_permuted], np.nonzero(is_permuted)[0],
                                   draw(6, np.flatnonzero(is_permuted)))
        replaced, kinds[is_permuted] = apply_mask(replaced, is_permuted, moved), PERMUTED
        is_predicted |= is_permuted
    labels = token_ids[is_predicted]
    if config.masked_lm_labels == "albert_zh":
        labels = np.where(word_starts[is_predicted], labels, vocabulary.continued_ids[labels])
    num_predictions = is_predicted.sum(axis=1, dtype=np.int32)
    slots = np.arange(config.num_slots) < num_predictions[:, None]
    return Instances(
        replaced, word_starts, lengths, first_lengths,
        _fill(slots, np.nonzero(is_predicted)[1].astype(np.int32)),
        _fill(slots, labels), _fill(slots, kinds[is_predicted]), num_predictions,
        np.array([pair.label for pair in pairs], np.int32), np.array([pair.is_cut for pair in pairs]))


def _fill(slots: np.ndarray, values: np.ndarray) -> np.ndarray:
    """Zeros of the shape of `slots`, with `values` where it is True."""
    filled = np.zeros(slots.shape, values.dtype)
    filled[slots] = values
    return filled


def _next_pairs(pair: SegmentPair, draw: float, budget: int, rng: np.random.Generator,
                draw_segment: DrawSegment) -> Iterator[SegmentPair]:
    """The pair unchanged, or each half before a random segment. A third of the draws, with two samples each,
    makes half of all samples random, and no text is lost."""
    halves = [(pair.a_ids, pair.a_word_starts), (pair.b_ids, pair.b_word_starts)]
    drawn = [draw_segment(rng, budget - len(ids)) for ids, _ in halves] if draw < 1 / 3 else []
    others = [other for other in drawn if other is not None]
    if len(others) < 2:
        yield pair
    else:
        for half, (ids, word_starts, is_cut) in zip(halves, others):
            yield SegmentPair(*half, ids, word_starts, 1, pair.is_cut or is_cut)


def _limits(words: Words, num_tokens: np.ndarray, config: InstanceConfig) -> np.ndarray:
    """Maximum tokens to mask in each sample; a short sample of long words still predicts one of them."""
    limits = num_to_predict(num_tokens, config.masked_lm_prob, config.num_slots)
    shortest = np.minimum.reduceat(words.lengths, np.searchsorted(words.samples, np.arange(len(num_tokens))))
    return np.maximum(limits, np.minimum(shortest, config.num_slots))


def _require(holds: bool, field: str, got: object, wanted: str) -> None:
    if not holds:
        raise ValueError("%s must be %s, got %s" % (field, wanted, got))
