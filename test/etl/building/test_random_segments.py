import numpy as np
import pytest

from etl.building import random_segments
from etl.building.random_segments import RandomSegments, collect_candidates, pool_path, write_pools
from etl.building.sources import TextFormat, plan_ranges
from etl.common.files import read_json
from etl.samples.draws import rng_for
from etl.samples.instances import part_of
from etl.text.documents import Document
from etl.text.words import load_segmenter

TEXTS = [["我爱北京天安门。", "今天天气很好。"], ["他去图书馆看书。"],
         ["我们明天去爬山。", "中华人民共和国成立了。"], ["他去图书馆看书。"]]


def write_corpus(folder, texts=TEXTS):
    path = folder / "x.txt"
    path.write_text("\n\n".join("\n".join(sentences) for sentences in texts) + "\n", encoding="utf-8")
    return str(path)


def build_pool(work_dir, path, range_bytes=None, seed=1, eval_fraction=0.0):
    ranges = plan_ranges([path], range_bytes)
    for numbered in enumerate(ranges):
        collect_candidates(str(work_dir), seed, eval_fraction, TextFormat(), numbered)
    write_pools(str(work_dir), [path], TextFormat(), len(ranges))
    return read_json(pool_path(str(work_dir), "train"))


def load_pool(work_dir, tokenizer, longest_word=9):
    return RandomSegments(pool_path(str(work_dir), "train"), tokenizer, load_segmenter(), longest_word)


@pytest.fixture
def pool(tmp_path, tokenizer):
    build_pool(tmp_path, write_corpus(tmp_path))
    return load_pool(tmp_path, tokenizer)


def drawn(pool, tokenizer, seed, not_from=(), limit=100):
    ids, starts, is_cut = pool.draw(rng_for(seed), tuple(not_from), limit)
    assert ids.dtype == np.int32 and starts.dtype == bool and len(ids) == len(starts)
    text = "".join(tokenizer.vocabulary.tokens[index] for index in ids)
    assert is_cut != text.endswith("。")
    return text


def test_the_pool_holds_each_text_once(tmp_path):
    assert sorted(build_pool(tmp_path, write_corpus(tmp_path))) == sorted(TEXTS[:3])


@pytest.mark.parametrize("range_bytes", [1, 30, 1000])
def test_ranges_do_not_change_the_pool(tmp_path, monkeypatch, range_bytes):
    monkeypatch.setattr(random_segments, "POOL_DOCUMENTS", 5)
    path = write_corpus(tmp_path, [["第%d篇。" % (number % 40)] for number in range(60)])
    whole = build_pool(tmp_path / "whole", path)
    assert len(whole) == 5
    assert build_pool(tmp_path / "ranges", path, range_bytes) == whole
    assert build_pool(tmp_path / "other", path, seed=2) != whole


def test_long_documents_are_cut(tmp_path, monkeypatch):
    monkeypatch.setattr(random_segments, "POOL_SENTENCES", 1)
    assert sorted(build_pool(tmp_path, write_corpus(tmp_path))) == sorted(
        [TEXTS[0][:1], TEXTS[1], TEXTS[2][:1]])


def test_a_segment_begins_with_a_sentence_and_is_another_document(pool, tokenizer):
    found = {drawn(pool, tokenizer, seed, not_from=TEXTS[1]) for seed in range(100)}
    assert found == {"我爱北京天安门。今天天气很好。", "今天天气很好。",
                     "我们明天去爬山。中华人民共和国成立了。", "中华人民共和国成立了。"}


@pytest.mark.parametrize("limit, segments", [
    (15, {"我爱北京天安门。今天天气很好。", "今天天气很好。"}), (14, {"我爱北京天安门。", "今天天气很好。"}),
    (7, {"我爱北京天安门", "今天天气很好。"}), (6, {"我爱北京", "今天天气很好"})])
def test_a_segment_ends_with_a_sentence_or_a_word(tmp_path, tokenizer, limit, segments):
    build_pool(tmp_path, write_corpus(tmp_path, TEXTS[:1]))
    pool = load_pool(tmp_path, tokenizer)
    assert {drawn(pool, tokenizer, seed, limit=limit) for seed in range(50)} == segments


def test_each_part_has_a_pool_of_its_own(tmp_path):
    path = write_corpus(tmp_path, [["第%d篇。" % number] for number in range(60)])
    train = build_pool(tmp_path, path, eval_fraction=0.5)
    held_out = read_json(pool_path(str(tmp_path), "eval"))
    assert len(train) + len(held_out) == 60 and 15 < len(train) < 45
    for part, texts in (("train", train), ("eval", held_out)):
        assert {part_of(Document(tuple(sentences), 0, 0), 1, 0.5) for sentences in texts} == {part}


@pytest.mark.parametrize("longest_word, limit, segment", [
    (9, 7, "中华人民共和国"), (9, 6, None), (3, 6, "中华人民共和"), (3, 5, "中华人"), (3, 2, None)])
def test_a_segment_never_ends_inside_a_word(tmp_path, tokenizer, longest_word, limit, segment):
    build_pool(tmp_path, write_corpus(tmp_path, [["中华人民共和国成立了。"]]))
    drawn = load_pool(tmp_path, tokenizer, longest_word).draw(rng_for(1), (), limit)
    assert (drawn and "".join(tokenizer.vocabulary.tokens[index] for index in drawn[0])) == segment


def test_where_no_word_fits_another_document_is_drawn(tmp_path, tokenizer):
    build_pool(tmp_path, write_corpus(tmp_path, [["中华人民共和国成立了。"], ["他去图书馆看书。"]]))
    assert {drawn(load_pool(tmp_path, tokenizer), tokenizer, seed, limit=2) for seed in range(20)} == {"他去"}


def test_nothing_else_to_draw(tmp_path, tokenizer):
    build_pool(tmp_path, write_corpus(tmp_path, TEXTS[:1]))
    pool = load_pool(tmp_path, tokenizer)
    assert pool.draw(rng_for(1), tuple(TEXTS[0]), 9) is None


def test_documents_without_tokens_are_not_drawn(tmp_path, tokenizer):
    build_pool(tmp_path, write_corpus(tmp_path, [["\0"], TEXTS[0]]))
    pool = load_pool(tmp_path, tokenizer)
    for seed in range(20):
        assert drawn(pool, tokenizer, seed)


def test_same_draw_same_segment(pool, tokenizer):
    assert [drawn(pool, tokenizer, seed) for seed in range(9)] == [drawn(pool, tokenizer, seed)
                                                                   for seed in range(9)]


def test_candidates_are_collected_once(tmp_path):
    path = write_corpus(tmp_path)
    build_pool(tmp_path, path)
    before = read_json(random_segments.candidates_path(str(tmp_path), 0))
    write_corpus(tmp_path, [["变了。"]])
    collect_candidates(str(tmp_path), 1, 0.0, TextFormat(), (0, plan_ranges([path])[0]))
    assert read_json(random_segments.candidates_path(str(tmp_path), 0)) == before


def test_the_pool_excludes_only_the_same_text(pool, tokenizer):
    assert Document(tuple(TEXTS[1]), 0, 0).identity == Document(tuple(TEXTS[3]), 0, 9).identity
    assert "他去图书馆看书。" not in {drawn(pool, tokenizer, seed, not_from=TEXTS[3]) for seed in range(50)}
    assert "他去图书馆看书。" in {drawn(pool, tokenizer, seed, not_from=TEXTS[0]) for seed in range(50)}
