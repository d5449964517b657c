import os
import platform
from collections import Counter

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

import albert_config
from etl import build_pretrain, build_vocab
from etl.build_vocab import VocabConfig, joined, learn_merges, learn_wordpiece, main, read_lines
from etl.common.command_line import UserError
from etl.common.files import expand
from etl.records import examples, manifest
from etl.text.tokenization import SPECIAL_TOKENS, TokenizerConfig, load_tokenizer, load_vocabulary

TEXT = "我爱北京天安门。\n今天天气很好，playing games！\n\n" * 30 + "中华人民共和国\n"
SAMPLE = os.path.join(os.path.dirname(build_vocab.__file__), "sample", "*.txt")
WORDS = st.dictionaries(st.text("abc", min_size=1, max_size=5), st.integers(1, 4), max_size=5)


@pytest.fixture(scope="module")
def shipped():
    return load_vocabulary(albert_config.vocab_path())


@pytest.fixture
def text_file(tmp_path):
    path = tmp_path / "text.txt"
    path.write_text(TEXT, encoding="utf-8")
    return str(path)


def merges_by_counting_everything_anew(words, limit):
    """Byte-pair encoding as its paper states it; of equally frequent pairs the first in order."""
    spelt = {word: [word[0]] + ["##" + char for char in word[1:]] for word in words}
    made = []
    while len(made) < limit:
        pairs = Counter()
        for word, pieces in spelt.items():
            for pair in zip(pieces, pieces[1:]):
                pairs[pair] += words[word]
        best = min(pairs, key=lambda pair: (-pairs[pair], pair), default=None)
        if best is None or pairs[best] < 2:
            break
        piece = best[0] + best[1][2:]
        made += [piece] if piece not in made else []
        for pieces in spelt.values():
            at = 0
            while at < len(pieces) - 1:
                if (pieces[at], pieces[at + 1]) == best:
                    pieces[at:at + 2] = [piece]
                at += 1
    return made


@pytest.mark.skipif(platform.python_version() != "3.7.16",
                    reason="the entries come from what this very Python carries")
def test_the_command_makes_the_shipped_vocabulary(tmp_path):
    assert main(["--output_file", str(tmp_path / "v.txt")]) == 0
    assert (tmp_path / "v.txt").read_bytes() == open(albert_config.vocab_path(), "rb").read()


def test_shipped_entries(shipped):
    assert len(shipped) == len(set(shipped.tokens)) == 21128
    assert shipped.tokens[:100] == ["[PAD]"] + ["[unused%d]" % number for number in range(1, 100)]
    assert shipped.tokens[100:106] == ["[UNK]", "[CLS]", "[SEP]", "[MASK]", "<S>", "<T>"]
    assert not [token for token in shipped.tokens if not token or token != token.strip()]
    assert set("“”‘’…—，。！？；：（）《》、") <= set(shipped.tokens)


def test_shipped_entries_hold_all_of_gb2312(shipped):
    gb2312 = [bytes([high, low]).decode("gb2312") for high in range(0xB0, 0xF8) for low in range(0xA1, 0xFF)
              if not (high == 0xD7 and low >= 0xFA)]
    assert len(gb2312) == 6763
    assert set(gb2312) <= set(shipped.tokens)


def test_shipped_sample_has_no_unknown_token():
    tokenizer = load_tokenizer(TokenizerConfig(albert_config.vocab_path()))
    unknown = [line for line in read_lines(expand([SAMPLE], "sample"))
               if tokenizer.vocabulary.unk in tokenizer.encode(line).ids]
    assert unknown == []


@pytest.mark.parametrize("size", [1000, 40000])
def test_another_size_of_the_shipped_entries_is_refused(tmp_path, capsys, size):
    path = str(tmp_path / "v.txt")
    with pytest.raises(SystemExit) as stop:
        main(["--output_file", path, "--vocab_size", str(size)])
    assert stop.value.code == 2 and not os.path.exists(path)
    assert "vocab_size of the shipped vocabulary is 21128, got %d" % size in capsys.readouterr().err


@given(WORDS, st.integers(0, 8))
def test_merges_are_byte_pair_encoding(words, limit):
    assert learn_merges(words, limit) == merges_by_counting_everything_anew(words, limit)


def test_a_pair_whose_count_falls_is_not_forgotten():
    assert learn_merges({"caa": 1, "baa": 3, "ca": 3}, 9) == ["##aa", "baa", "ca"]


@pytest.mark.parametrize("words, limit, pieces", [
    ({}, 9, []), ({"a": 9}, 9, []), ({"ab": 1}, 9, []), ({"ab": 2}, 9, ["ab"]), ({"ab": 2}, 0, []),
    ({"aaa": 2}, 9, ["##aa", "aaa"]), ({"abc": 2, "xbc": 2}, 9, ["##bc", "abc", "xbc"]),
    ({"abc": 2, "xbc": 2}, 1, ["##bc"]),])
def test_learn_merges(words, limit, pieces):
    assert learn_merges(words, limit) == pieces


def test_learn_wordpiece():
    tokens = learn_wordpiece(["Play 北 play, 北", "北 plays"], 120, do_lower_case=True)
    assert tokens[:106] == load_vocabulary(albert_config.vocab_path()).tokens[:106]
    assert tokens[106:113] == ["##a", "##l", "##y", "p", "北", "##s", ","]
    assert tokens[113:116] == ["##ay", "##lay", "play"]
    assert len(tokens) == len(set(tokens)) == 120 and tokens[-1].startswith("[unused1")


def test_characters_come_first_by_frequency():
    tokens = learn_wordpiece(["乙 甲 丙 甲", "丙 甲"], 109, do_lower_case=True)
    assert tokens[106:] == ["甲", "丙", "乙"]


@pytest.mark.parametrize("lines, size, message", [
    ([], 200, "--input_file: no text"),
    (["甲乙丙"], 108,
     "--vocab_size: the text has 3 different characters; with the special entries that needs 109, got 108; "
     "the 2 most frequent ones are 66.6667% of the text: --character_coverage 0.666666 leaves out the "
     "others"),
])
def test_nothing_to_learn(lines, size, message):
    with pytest.raises(UserError) as error:
        learn_wordpiece(lines, size, True)
    assert str(error.value) == message


def test_words_that_are_unknown_in_any_case_are_left_out():
    notes = []
    tokens = learn_wordpiece(["甲 ab ab " + "xyz" * 100000], 111, True, say=notes.append)
    assert tokens[106:] == ["##b", "a", "甲", "ab", "[unused100]"] and notes[0] == (
        "words of over 200 characters, which the tokenizer takes for [UNK], left out: 1, such as "
        "xyzxyzxyzxyzxyzxyzxy…")
    with pytest.raises(UserError, match="no text but words of over 200 characters"):
        learn_wordpiece(["x" * 201], 120, True)


def test_read_lines(tmp_path):
    (tmp_path / "a").write_bytes("\ufeff你好\r\n　\n再见".encode("utf-8"))
    (tmp_path / "b").write_bytes(b"a\n\xff\n")
    assert list(read_lines([str(tmp_path / "a")])) == ["你好", "再见"]
    with pytest.raises(UserError) as error:
        list(read_lines([str(tmp_path / "b")]))
    assert str(error.value) == str(tmp_path / "b") + ": line 2: not UTF-8: invalid start byte at byte 0xff"


def test_vocabulary_from_text(tmp_path, text_file, capsys):
    path = str(tmp_path / "v.txt")
    assert main(["--input_file", text_file, "--vocab_size", "200", "--output_file", path]) == 0
    assert capsys.readouterr().out == (
        "Note: the text gave 148 entries; the last 52 of 200 are [unused…], which no text has: "
        "--vocab_size 148 is enough\nWrote %s: 200 entries\n"
        "Next: python -m etl.build_pretrain --vocab_file %s\n"
        % (path, path))
    tokenizer = load_tokenizer(TokenizerConfig(path))
    assert len(tokenizer.vocabulary) == 200
    assert tokenizer.tokenize("我爱playing，中华") == ["我", "爱", "playing", "，", "中", "华"]


def test_rare_characters_go_on_demand():
    notes = []
    tokens = learn_wordpiece(["甲 甲 甲 乙 乙 ab ab ac"], 120, True, character_coverage=0.8, say=notes.append)
    assert tokens[106:112] == ["a", "甲", "##b", "乙", "ab", "[unused100]"]
    assert notes == [
        "characters that have no entry: 1, 9.0909% of the text; --character_coverage 1 keeps them",
        "the text gave 111 entries; the last 9 of 120 are [unused…], which no text has: --vocab_size 111 is "
        "enough"]


def test_json_lines(tmp_path, capsys):
    source, path = tmp_path / "a.jsonl", str(tmp_path / "v.txt")
    line = '{"title": "\\u6807\\u9898", "content": "\\u4eca\\u5929\\u5929"}\n\n'
    source.write_text("\ufeff" + line * 2, encoding="utf-8")
    flags = ["--input_file", str(source), "--output_file", path, "--vocab_size", "110"]
    assert main(flags) == 1
    assert capsys.readouterr().err == (
        "etl.build_vocab: error: --input_file: %s: line 1 holds JSON: give --input_format jsonl, and "
        "--text_field, the field of the text: one of title, content\n" % source)
    assert main(flags + ["--input_format", "jsonl", "--text_field", "title", "content"]) == 0
    assert load_vocabulary(path).tokens[106:] == ["天", "今", "标", "题"]
    assert main(flags + ["--input_format", "jsonl", "--text_field", "body"]) == 1
    assert "a.jsonl: line 1: no text in field 'body'; fields with one: title" in capsys.readouterr().err


def test_case_is_kept_on_demand(tmp_path, text_file):
    assert "Play" in learn_wordpiece(["Play Play"], 130, do_lower_case=False)
    assert "Play" not in learn_wordpiece(["Play Play"], 130, do_lower_case=True)


@pytest.fixture(scope="module")
def model_file(tmp_path_factory):
    """A SentencePiece model learned from the shipped sample."""
    path = str(tmp_path_factory.mktemp("model") / "x.model")
    assert main(["--input_file", SAMPLE, "--vocab_size", "3000", "--model", "sentencepiece", "--output_file",
                 path]) == 0
    return path


def test_sentencepiece_model_from_text(model_file):
    tokenizer = load_tokenizer(TokenizerConfig(spm_model_file=model_file))
    vocabulary = tokenizer.vocabulary
    assert len(vocabulary) == 3000 and (vocabulary.pad, vocabulary.unk) == (0, 1)
    assert not {vocabulary.tokens[index] for index in vocabulary.replaceable_ids} & set(SPECIAL_TOKENS)
    text = "许多人学做饭，都是从一盘清炒青菜开始的 因为它看上去最简单"
    encoding = tokenizer.encode(text)
    assert encoding.ids.dtype == encoding.offsets.dtype == np.int32
    assert encoding.offsets.tolist() == sorted(encoding.offsets.tolist())
    assert vocabulary.unk not in encoding.ids
    for token, offset in zip(tokenizer.tokenize(text), encoding.offsets):
        assert text.replace("，", ",")[offset:].startswith(token.replace("▁", ""))
    assert tokenizer.tokenize("") == []


def test_next_command_takes_the_model(tmp_path, model_file, capsys):
    path = str(tmp_path / "x.model")
    assert main(["--input_file", SAMPLE, "--vocab_size", "3000", "--model", "sentencepiece", "--output_file",
                 path]) == 0
    assert capsys.readouterr().out.endswith("Next: python -m etl.build_pretrain --spm_model_file %s\n" % path)
    assert open(path, "rb").read() == open(model_file, "rb").read()


def test_no_line_is_too_long_for_sentencepiece(tmp_path, capsys):
    han = [chr(0x4E00 + number) for number in range(100)]
    source, path = tmp_path / "a.txt", str(tmp_path / "x.model")
    lines = ["我爱北京。" * 50, "".join(han) * 200 + "。", "好▅的▅" * 9 + "人" * 9]
    source.write_text("\n".join(lines), encoding="utf-8")
    assert main(["--input_file", str(source), "--vocab_size", "115", "--model", "sentencepiece",
                 "--output_file", path, "--character_coverage", "1"]) == 0
    tokens = "".join(load_tokenizer(TokenizerConfig(spm_model_file=path)).vocabulary.tokens)
    assert set(han) | set("我爱好的人") <= set(tokens)
    note = "Note: characters that have no entry: 1, 0.0887% of the text, such as ▅\n"
    assert note in capsys.readouterr().out


def test_sentences_have_the_offsets_of_their_lines(model_file):
    tokenizer = load_tokenizer(TokenizerConfig(spm_model_file=model_file))
    sentences = ["许多人学做饭", "因为 它看上去", "最简单"]
    together = tokenizer.encode_sentences(sentences)
    parts = [tokenizer.encode(sentence) for sentence in sentences]
    assert together.ids.tolist() == sum([part.ids.tolist() for part in parts], [])
    begins = [0, len(sentences[0]) + 1, len(sentences[0]) + len(sentences[1]) + 2]
    assert together.offsets.tolist() == [begin + offset for begin, part in zip(begins, parts)
                                         for offset in part.offsets.tolist()]


def test_a_build_with_the_model(tmp_path, model_file, capsys):
    out = str(tmp_path / "out")
    assert build_pretrain.main(["--input_file", SAMPLE, "--spm_model_file", model_file, "--output_dir", out,
                                "--max_seq_length", "64", "--dupe_factor", "1"]) == 0
    assert build_pretrain.main(["--output_dir", out, "--verify"]) == 0
    found = manifest.read(out)
    assert (found.vocab_size, found.tokenizer.vocab_file) == (3000, None)
    assert (found.counters["train_samples"] > 100
            and found.counters["unknown_tokens"] < found.counters["tokens"] / 100)
    pieces = load_tokenizer(found.tokenizer).vocabulary.tokens
    path = os.path.join(out, found.train[0].path)
    with open(path, "rb") as stream:
        record = next(examples.read_frames(stream, path))
    sample = examples.deserialize_example(record)
    assert pieces[sample["input_ids"][0]] == "[CLS]" and "[MASK]" in [
        pieces[index] for index in sample["input_ids"]]


@pytest.mark.parametrize("text", ["İstanbul", "ΑΣ ΑΣ", "  好的", "ａｂ", "…—", "好\0的", "ﬁ好", " "])
def test_sentencepiece_offsets_stay_within_the_text(model_file, text):
    offsets = load_tokenizer(TokenizerConfig(spm_model_file=model_file)).encode(text).offsets.tolist()
    assert offsets == sorted(offsets) and all(0 <= offset < len(text) for offset in offsets)


@pytest.mark.parametrize("changes, message", [
    ({"vocab_size": 106}, "vocab_size must be above 106, the number of special entries, got 106"),
    ({"model": "sentencepiece"}, "model sentencepiece needs input_file: it is learned from text"),
])
def test_bad_flags(changes, message):
    with pytest.raises(ValueError) as error:
        VocabConfig(**changes)
    assert str(error.value) == message


@pytest.mark.parametrize("changed", [
    ["--input_file", "gone*.txt"], ["--vocab_size", "110"],
    ["--vocab_size", "9999", "--model", "sentencepiece"]])
def test_a_users_mistake_leaves_no_file(tmp_path, text_file, capsys, changed):
    path = str(tmp_path / "v.txt")
    assert main(["--output_file", path]
                + (["--input_file", text_file] if changed[0] != "--input_file" else []) + changed) == 1
    assert capsys.readouterr().err.startswith("etl.build_vocab: error: --")
    assert not os.path.exists(path)


@pytest.mark.parametrize("model", ["wordpiece", "sentencepiece"])
@pytest.mark.parametrize("content, message", [
    ("好的\n".encode("utf-8") * 3000 + b"a\xff\n",
     "{path}: line 3001: not UTF-8: invalid start byte at byte 0xff"),
    (b"a\xff\n", "{path}: line 1: not UTF-8: invalid start byte at byte 0xff"),
    (b"\n \n", "--input_file: no text"),
])
def test_bad_text_is_the_same_line_for_both_models(tmp_path, capfd, model, content, message):
    (tmp_path / "x.txt").write_bytes(content)
    argv = ["--input_file", str(tmp_path / "x.txt"), "--output_file", str(tmp_path / "v"), "--vocab_size",
            "300", "--model", model]
    assert main(argv) == 1
    assert capfd.readouterr().err == "etl.build_vocab: error: %s\n" % message.format(path=tmp_path / "x.txt")
    assert not (tmp_path / "v").exists()


def test_a_folder_in_the_place_of_the_output(tmp_path, capsys):
    assert main(["--output_file", str(tmp_path)]) == 1
    assert (capsys.readouterr().err
            == "etl.build_vocab: error: --output_file: %s is a folder, not a file\n" % tmp_path)


def joined_in_place(pieces, pair, piece):
    """What `joined` does, in quadratic time."""
    pieces, at = list(pieces), 0
    while at < len(pieces) - 1:
        if (pieces[at], pieces[at + 1]) == pair:
            pieces[at:at + 2] = [piece]
        at += 1
    return pieces


@given(st.lists(st.sampled_from(["a", "##a", "##b", "##aa"]), max_size=12),
       st.sampled_from(["a", "##a", "##b"]),
       st.sampled_from(["##a", "##b"]))
def test_a_pair_is_joined_wherever_it_stands(pieces, first, second):
    piece = first + second[2:]
    assert joined(pieces, (first, second), piece) == joined_in_place(pieces, (first, second), piece)
