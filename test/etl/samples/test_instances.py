import dataclasses
import itertools
from typing import NamedTuple

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from etl.samples.draws import rng_for
from etl.samples.instances import InstanceConfig, mask_pairs, segment_pairs, tokenize_document
from etl.samples.masking import KEPT, MASKED, PERMUTED, RANDOM
from etl.samples.segments import break_giant_words
from etl.text.documents import Document
from etl.text.tokenization import SPECIAL_TOKENS, Vocabulary, WordPieceTokenizer, is_han
from etl.text.words import load_segmenter

CONFIG = InstanceConfig(max_seq_length=24, max_predictions_per_seq=5)
POEM = Document(("我爱北京天安门。", "中华人民共和国成立了。", "他去图书馆看书。", "今天天气很好。",
                 "我们playings去爬山。"), 0, 0)
CONFIGS = st.builds(
    InstanceConfig, max_seq_length=st.integers(8, 40), max_predictions_per_seq=st.integers(1, 8),
    masked_lm_prob=st.sampled_from([0.01, 0.15, 0.9]), short_seq_prob=st.sampled_from([0.0, 0.5, 1.0]),
    masking=st.sampled_from(["whole_word", "ngram", "token"]),
    do_permutation=st.booleans(),
    sentence_objective=st.sampled_from(["order", "none"]), random_seed=st.integers(0, 9))
# without unknown words, which count as marks
WORDS = [*"我爱北京天安门中华人民共和国成立了。\0", " ab ", " play "]
SENTENCES = st.lists(st.lists(st.sampled_from(WORDS), min_size=1, max_size=20).map("".join), min_size=1,
                     max_size=5)


def tokenized(document, tokenizer):
    return tokenize_document(document, tokenizer, load_segmenter())


class Instance(NamedTuple):
    """A sample of `Instances`, without its padding."""
    input_ids: np.ndarray
    word_starts: np.ndarray
    first_length: int
    masked_lm_positions: np.ndarray
    masked_lm_ids: np.ndarray
    masked_lm_kinds: np.ndarray
    label: int
    is_cut: bool


def instances_from_document(document, identity, copy, config, vocabulary, draw_segment=None):
    """The samples of one copy of a document."""
    pairs = list(segment_pairs(document, 1, config, rng_for(config.random_seed, identity, copy),
                               draw_segment))
    if not pairs:
        return []
    seeds = rng_for(config.random_seed, identity, copy, "mask").integers(1 << 62, size=len(pairs),
                                                                         dtype=np.uint64)
    found = mask_pairs(pairs, seeds, config, vocabulary)
    assert not found.input_ids[np.arange(config.max_seq_length) >= found.lengths[:, None]].any()
    assert not found.masked_lm_ids[np.arange(
        config.max_predictions_per_seq) >= found.num_predictions[:, None]].any()
    return [Instance(ids[:length], starts[:length], first_length, positions[:count], labels[:count],
                     kinds[:count], label, is_cut)
            for (ids, starts, length, first_length, positions, labels, kinds, count, label,
                 is_cut) in zip(*found)]


def instances(document, tokenizer, config=CONFIG, copy=0, identity=("poem",)):
    return instances_from_document(tokenized(document, tokenizer), identity, copy, config,
                                   tokenizer.vocabulary)


def original(instance):
    ids = instance.input_ids.copy()
    ids[instance.masked_lm_positions] = instance.masked_lm_ids
    return ids


def segments(instance):
    """The original ids of the two segments, in reading order, without special tokens."""
    ids = original(instance).tolist()
    first, second = ids[1:instance.first_length - 1], ids[instance.first_length:-1]
    return (second, first) if instance.label else (first, second)


def text_of(instance, vocabulary):
    """The original ids of a sample in reading order; marks of segments that do not end alike have stayed in
    their places."""
    first, second = segments(instance)
    first_marks, second_marks = (
        list(itertools.takewhile(vocabulary.is_mark.__getitem__, reversed(ids)))[::-1]
        for ids in (first, second))
    first_text, second_text = first[:len(first) - len(first_marks)], second[:len(second) - len(second_marks)]
    if instance.label and first_text and second_text and first_marks[-1:] != second_marks[-1:]:
        return first_text + second_marks + second_text + first_marks
    return first + second


def same(one, other):
    return all(np.array_equal(a, b) for a, b in zip(one, other))


def test_tokenize_document(tokenizer):
    document = tokenized(Document(("我爱北京。", "\0", "playings", "好ab。好！。"), 0, 0), tokenizer)
    assert [tokenizer.vocabulary.tokens[index]
            for index in document.ids] == "我 爱 北 京 。 play ##ing ##s 好 ab 。 好 [UNK] 。".split(" ")
    assert document.word_starts.astype(int).tolist() == [1, 1, 1, 0, 1, 1, 0, 0, 1, 1, 1, 1, 1, 1]
    # the sentence of control characters is no sentence, a line of two is two
    assert document.sentence_starts.tolist() == [0, 5, 8, 11]
    assert document.is_mark.astype(int).tolist() == [0, 0, 0, 0, 1, 0, 0, 0, 0, 0, 1, 0, 1, 1]
    assert document.mark_starts.tolist() == [4, 8, 10, 12]
    assert document.endings[0] == document.endings[2] == document.endings[3] > document.endings[1] == 0
    assert [array.dtype for array in document] == [np.int32, bool, np.int32, bool, np.int32, np.int64]


def test_a_word_never_begins_inside_a_word_of_the_tokenizer(vocabulary):
    pieces = ["caf", "##e", "na", "##i", "##ve"]
    tokenizer = WordPieceTokenizer(Vocabulary(vocabulary.tokens + pieces, "test"), do_lower_case=True)
    document = tokenized(Document(("我爱café naïve北京",), 0, 0), tokenizer)
    assert [tokenizer.vocabulary.tokens[index]
            for index in document.ids] == "我 爱 caf ##e na ##i ##ve 北 京".split(" ")
    assert document.word_starts.astype(int).tolist() == [1, 1, 1, 0, 1, 0, 0, 1, 0]


@pytest.mark.parametrize("sentence", [
    "我爱北\u200b京天\xad安\ufeff门。", "我\u2060爱北\ufe0f京\u200d天安门\u200b。\u200c"])
def test_what_cannot_be_seen_parts_no_words(tokenizer, sentence):
    plain, given = (tokenized(Document((text,), 0, 0), tokenizer) for text in ("我爱北京天安门。", sentence))
    assert same(plain, given) and plain.word_starts.sum() == 5


def test_nothing_to_tokenize(tokenizer):
    document = tokenized(Document(("\0",), 0, 0), tokenizer)
    assert [len(array) for array in document] == [0] * 6
    assert instances(Document(("\0",), 0, 0), tokenizer) == []


def test_words_over_three_characters_are_predicted_whole(tokenizer):
    config = InstanceConfig(max_seq_length=24, max_predictions_per_seq=7, masked_lm_prob=0.5)
    nation = tokenizer.encode("中华人民共和国").ids.tolist()
    whole = parts = 0
    for copy in range(200):
        for instance in instances(Document(("中华人民共和国成立了。",), 0, 0), tokenizer, config, copy):
            labels = instance.masked_lm_ids.tolist()
            whole += nation == [index for index in labels if index in nation]
            parts += 0 < sum(index in nation for index in labels) < 7
    assert whole > 20 and parts == 0


@settings(max_examples=150)
@given(SENTENCES, CONFIGS)
def test_samples_hold_every_token_once_in_order(tokenizer, sentences, config):
    document = tokenized(Document(tuple(sentences), 0, 0), tokenizer)
    samples = list(instances_from_document(document, (), 0, config, tokenizer.vocabulary))
    num_words = break_giant_words(document.word_starts, config.longest_word).sum()
    if num_words < (2 if config.sentence_objective == "order" else 1):
        assert samples == []
        return
    assert [token for sample in samples
            for token in text_of(sample, tokenizer.vocabulary)] == document.ids.tolist()


@settings(max_examples=150)
@given(SENTENCES, CONFIGS)
def test_every_sample_is_well_formed(tokenizer, sentences, config):
    vocabulary = tokenizer.vocabulary
    for sample in instances(Document(tuple(sentences), 0, 0), tokenizer, config):
        ids = original(sample)
        assert len(ids) == len(sample.word_starts) <= config.max_seq_length
        assert ids[0] == vocabulary.cls and ids[-1] == ids[sample.first_length - 1] == vocabulary.sep
        assert (sample.first_length < len(ids)) == (config.sentence_objective == "order")
        assert sample.word_starts[[0, 1, sample.first_length - 1, -1]].all()
        assert len(sample.masked_lm_positions) == len(sample.masked_lm_ids) == len(sample.masked_lm_kinds)
        assert len(sample.masked_lm_ids) <= config.max_predictions_per_seq
        assert not set(sample.masked_lm_ids) & {vocabulary.pad, vocabulary.cls, vocabulary.sep,
                                                vocabulary.mask}
        assert sample.label in (0, 1)


def test_labels_are_what_stood_there(tokenizer):
    text = tokenizer.encode("".join(POEM.sentences)).ids.tolist()
    for copy in range(50):
        samples = instances(POEM, tokenizer, copy=copy)
        assert [token for sample in samples for segment in segments(sample) for token in segment] == text
        for sample in samples:
            standing, kinds = sample.input_ids[sample.masked_lm_positions], sample.masked_lm_kinds
            assert (standing[kinds == MASKED] == tokenizer.vocabulary.mask).all()
            assert (standing[kinds == KEPT] == sample.masked_lm_ids[kinds == KEPT]).all()
            assert set(standing[kinds == RANDOM]) <= set(tokenizer.vocabulary.replaceable_ids)
            labels = [tokenizer.vocabulary.tokens[index] for index in sample.masked_lm_ids]
            assert not [label for label in labels if label.startswith("##") and is_han(label[2])]


def test_same_seed_same_samples(tokenizer):
    first, again = instances(POEM, tokenizer), instances(POEM, tokenizer)
    assert len(first) == len(again) > 1
    assert all(map(same, first, again))


@pytest.mark.parametrize("changed", [{"copy": 1}, {"identity": ("other",)},
                                     {"config": dataclasses.replace(CONFIG, random_seed=1)}])
def test_copy_document_and_seed_change_the_samples(tokenizer, changed):
    assert not all(map(same, instances(POEM, tokenizer), instances(POEM, tokenizer, **changed)))


def test_half_of_the_samples_are_swapped(tokenizer):
    document = tokenized(POEM, tokenizer)
    labels = [sample.label for copy in range(1000)
              for sample in instances_from_document(document, (), copy, CONFIG, tokenizer.vocabulary)]
    assert abs(np.mean(labels) - 0.5) < 0.03


@pytest.mark.parametrize("short_seq_prob", [0.0, 0.3, 1.0])
def test_share_of_short_copies(tokenizer, short_seq_prob):
    document = tokenized(POEM, tokenizer)
    config = dataclasses.replace(CONFIG, max_seq_length=64, short_seq_prob=short_seq_prob)
    cut = np.mean([len(list(instances_from_document(document, (), copy, config, tokenizer.vocabulary))) > 1
                   for copy in range(600)])
    # at full length the poem is one sample, so it is when the target
    targets = np.arange(2, config.budget + 1)
    share = np.mean(targets <= document.sentence_starts[-1])   # lies in its last sentence
    assert abs(cut - short_seq_prob * share) < 0.06


def test_a_document_of_one_sentence_is_split_inside(tokenizer):
    sample, = instances(Document(("我爱北京天安门",), 0, 0), tokenizer)
    first, second = segments(sample)
    assert first and second


def test_one_word_gives_no_pair_but_one_segment(tokenizer):
    assert instances(Document(("天安门",), 0, 0), tokenizer) == []
    sample, = instances(Document(("天安门",), 0, 0), tokenizer,
                        dataclasses.replace(CONFIG, sentence_objective="none"))
    assert original(sample).tolist() == [
        tokenizer.vocabulary.cls] + tokenizer.encode("天安门").ids.tolist() + [tokenizer.vocabulary.sep]
    assert sample.first_length == 5


def test_a_word_longer_than_the_share_is_still_predicted(tokenizer):
    config = dataclasses.replace(CONFIG, sentence_objective="none", masked_lm_prob=0.01)
    sample, = instances(Document(("天安门",), 0, 0), tokenizer, config)
    assert sample.masked_lm_positions.tolist() == [1, 2, 3]


def test_token_masking_takes_single_tokens(tokenizer):
    config = dataclasses.replace(CONFIG, masking="token", masked_lm_prob=0.05)
    for sample in instances(Document(("中华人民共和国。", "中华人民共和国。"), 0, 0), tokenizer, config):
        assert len(sample.masked_lm_ids) == 1


def test_permuted_tokens_come_on_top_and_keep_their_tokens(tokenizer):
    config = dataclasses.replace(CONFIG, do_permutation=True, max_predictions_per_seq=10)
    moved = 0
    for copy in range(50):
        for sample in instances(POEM, tokenizer, config, copy):
            permuted = sample.masked_lm_kinds == PERMUTED
            standing, labels = (sample.input_ids[sample.masked_lm_positions[permuted]],
                                sample.masked_lm_ids[permuted])
            assert sorted(standing) == sorted(labels)
            assert 0 < permuted.sum() <= max(1, round(0.15 * len(sample.input_ids)), (~permuted).sum())
            moved += (standing != labels).sum()
    assert moved > 0


def test_no_room_for_permuted_tokens(tokenizer):
    config = dataclasses.replace(CONFIG, do_permutation=True, max_predictions_per_seq=1, masking="token")
    for sample in instances(POEM, tokenizer, config):
        assert len(sample.masked_lm_ids) == 1 and sample.masked_lm_kinds[0] != PERMUTED


def test_labels_of_the_albert_zh_heads():
    tokens = list(SPECIAL_TOKENS) + ["天", "安", "门", "##天", "##门", "play", "##ing"]
    config = dataclasses.replace(CONFIG, sentence_objective="none", masked_lm_prob=0.9,
                                 max_predictions_per_seq=24, masked_lm_labels="albert_zh")
    sample, = instances(Document(("天安门playing",), 0, 0),
                        WordPieceTokenizer(Vocabulary(tokens, "test"), True), config)
    assert [tokens[index] for index in sample.masked_lm_ids] == ["天", "安", "##门", "play", "##ing"]


def draw_other(rng, limit):
    length = min(limit, 1 + int(rng.random() * limit))
    return np.full(length, 7, np.int32), np.ones(length, bool), False


def test_half_of_the_second_segments_are_random(tokenizer):
    config = dataclasses.replace(CONFIG, sentence_objective="next")
    document = tokenized(POEM, tokenizer)
    samples = [sample for copy in range(400)
               for sample in instances_from_document(document, (), copy, config, tokenizer.vocabulary,
                                                     draw_other)]
    assert abs(np.mean([sample.label for sample in samples]) - 0.5) < 0.05
    assert max(len(sample.input_ids) for sample in samples) <= 24
    for sample in samples:
        assert (sample.label == 1) == (set(original(sample)[sample.first_length:-1]) == {7})


def test_next_sentence_loses_no_text(tokenizer):
    config = dataclasses.replace(CONFIG, sentence_objective="next")
    document = tokenized(POEM, tokenizer)
    for copy in range(20):
        text = []
        for sample in instances_from_document(document, (), copy, config, tokenizer.vocabulary, draw_other):
            text += original(sample)[1:sample.first_length - 1].tolist()
            text += original(sample)[sample.first_length:-1].tolist() if not sample.label else []
        assert text == document.ids.tolist()


def test_without_another_document_all_pairs_are_true(tokenizer):
    config = dataclasses.replace(CONFIG, sentence_objective="next")
    samples = list(instances_from_document(tokenized(POEM, tokenizer), (), 0, config, tokenizer.vocabulary,
                                           lambda rng, limit: None))
    assert samples and not any(sample.label for sample in samples)


def test_further_copies_come_behind(tokenizer):
    document = tokenized(POEM, tokenizer)
    one, three = (list(segment_pairs(document, copies, CONFIG, rng_for(1))) for copies in (1, 3))
    assert len(three) > len(one) and all(map(same, one, three))


def test_a_sample_does_not_depend_on_its_neighbours(tokenizer):
    config = dataclasses.replace(CONFIG, masking="ngram", do_permutation=True, max_predictions_per_seq=9)
    pairs = list(segment_pairs(tokenized(POEM, tokenizer), 5, config, rng_for(1)))
    seeds = np.arange(len(pairs), dtype=np.uint64)
    together = mask_pairs(pairs, seeds, config, tokenizer.vocabulary)
    for row, pair in enumerate(pairs):
        alone = mask_pairs([pair], seeds[row:row + 1], config, tokenizer.vocabulary)
        assert all(np.array_equal(one[0], several[row]) for one, several in zip(alone, together))


@pytest.mark.parametrize("changes, message", [
    ({"max_seq_length": 7}, "max_seq_length must be at least 8, got 7"),
    ({"max_predictions_per_seq": 0},
     "max_predictions_per_seq must be in 1..max_seq_length, which is 24, got 0"),
    ({"max_predictions_per_seq": 25},
     "max_predictions_per_seq must be in 1..max_seq_length, which is 24, got 25"),
    ({"masked_lm_prob": 0.0}, "masked_lm_prob must be in (0, 1), got 0.0"),
    ({"masked_lm_prob": 1.0}, "masked_lm_prob must be in (0, 1), got 1.0"),
    ({"short_seq_prob": -0.1}, "short_seq_prob must be in [0, 1], got -0.1"),
    ({"dupe_factor": 0}, "dupe_factor must be at least 1, got 0"),
    ({"ngram": 0}, "ngram must be at least 1, got 0"),
    ({"masking": "words"}, "masking must be one of whole_word, ngram, token, got words"),
    ({"sentence_objective": "both"}, "sentence_objective must be one of order, next, none, got both"),
    ({"masked_lm_labels": "bert"}, "masked_lm_labels must be one of plain, albert_zh, got bert"),
])
def test_bad_settings(changes, message):
    with pytest.raises(ValueError) as error:
        dataclasses.replace(CONFIG, **changes)
    assert str(error.value) == message


def test_budget_leaves_room_for_the_special_tokens():
    assert CONFIG.budget == 21
    assert dataclasses.replace(CONFIG, sentence_objective="none").budget == 22


@pytest.mark.parametrize("length, prob, given, wanted", [(128, 0.15, None, 19), (512, 0.15, None, 77),
                                                         (8, 0.01, None, 1), (128, 0.15, 5, 5)])
def test_predictions_follow_from_the_length(length, prob, given, wanted):
    config = InstanceConfig(max_seq_length=length, masked_lm_prob=prob, max_predictions_per_seq=given)
    assert config.num_slots == wanted


def test_shuffled_tokens_get_as_many_places_as_masked_ones():
    assert InstanceConfig(max_seq_length=100, do_permutation=True).num_slots == 30
    assert InstanceConfig(max_seq_length=10, masked_lm_prob=0.6, do_permutation=True).num_slots == 10
