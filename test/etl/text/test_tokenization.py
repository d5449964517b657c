import unicodedata

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import albert_config
from etl.common.command_line import UserError
from etl.text.tokenization import (CLS, MASK, PAD, SEP, SPECIAL_TOKENS, UNK, SentencePieceTokenizer,
                                   TokenizerConfig, Vocabulary, WordPieceTokenizer, is_dropped, is_han,
                                   is_punctuation, load_tokenizer, load_vocabulary, may_begin_word_by_blanks,
                                   preprocess_text, split_words, without_dropped)

ENTRIES = list(SPECIAL_TOKENS) + ["北", "京", "abc", "un", "##aff", "##able", "a", "##b", "##c", ",", "，",
                                  "cafe", "1", "##2", "##3", "豈"]
HAN = "北京㐀豈𠀀𫝀丽"
SCRIPTS = ("abcABC unaffable Unaffable cafe café CAFÉ Ａ123" + HAN + "，。！,.!?'\"-_$^`~+<|、「」…—·¡¿"
           "ßẞİıſΣσςΑΟΔΟΣЁйЙäÅﬁŁøœ" + "가각힣ᄀ" + "ひガが\u3099" + "हिन्दी" + "ไทย" + "עִבְ" + "العَ"
           + "\u0301\u0327\u0323a\u0323\u0301" + "\t\n\r \xa0\u1680\u2003\u2028\u2029\u202f\u205f\u3000"
           + "\0\ufffd\x07\x0b\x0c\x1c\x85\u200b\u200d\ufeff\xad\u180e"
           + "😀👩\u200d🚀\ud800\ue000\u037e\u1fef\u0345ͅ")
TEXT = st.text(st.one_of(st.sampled_from(SCRIPTS), st.characters(blacklist_categories=["Cn"])), max_size=25)


def reference_words(text, do_lower_case):
    """BERT's published basic tokenizer."""
    cleaned = ""
    for char in text:
        if char in "\t\n\r" or unicodedata.category(char) == "Zs":
            cleaned += " "
        elif char in "\0\ufffd" or unicodedata.category(char) in ("Cc", "Cf"):
            continue
        elif reference_is_han(ord(char)):
            cleaned += " " + char + " "
        else:
            cleaned += char
    words = []
    for word in cleaned.split():
        if do_lower_case:
            word = "".join(char for char in unicodedata.normalize("NFD", word.lower())
                           if unicodedata.category(char) != "Mn")
        words += "".join(" %s " % char if reference_is_punctuation(char) else char for char in word).split()
    return words


def reference_is_han(code):
    return (0x4E00 <= code <= 0x9FFF or 0x3400 <= code <= 0x4DBF or 0x20000 <= code <= 0x2A6DF
            or 0x2A700 <= code <= 0x2B73F or 0x2B740 <= code <= 0x2B81F or 0x2B820 <= code <= 0x2CEAF
            or 0xF900 <= code <= 0xFAFF or 0x2F800 <= code <= 0x2FA1F)


def reference_is_punctuation(char):
    return char in "!\"#$%&'()*+,-./:;<=>?@[\\]^_`{|}~" or unicodedata.category(char).startswith("P")


def reference_pieces(word, vocabulary):
    """BERT's published WordPiece tokenizer."""
    if len(word) > 200:
        return [UNK]
    pieces, begin = [], 0
    while begin < len(word):
        end = len(word)
        while begin < end and ("##" if begin else "") + word[begin:end] not in vocabulary:
            end -= 1
        if begin == end:
            return [UNK]
        pieces.append(("##" if begin else "") + word[begin:end])
        begin = end
    return pieces


def reference_tokens(text, vocabulary, do_lower_case):
    return [piece for word in reference_words(text, do_lower_case)
            for piece in reference_pieces(word, vocabulary)]


def tokenizer_of(entries=ENTRIES, do_lower_case=True):
    return WordPieceTokenizer(Vocabulary(list(entries), "test"), do_lower_case)


@pytest.fixture(scope="module")
def shipped():
    return load_vocabulary(albert_config.vocab_path())


@settings(max_examples=400)
@given(TEXT, st.booleans())
def test_tokens_are_those_of_bert(shipped, text, do_lower_case):
    tokens = WordPieceTokenizer(shipped, do_lower_case).tokenize(text)
    assert tokens == reference_tokens(text, shipped.ids, do_lower_case)


@settings(max_examples=400)
@given(TEXT, st.booleans())
def test_words_are_those_of_bert(text, do_lower_case):
    words = reference_words(text, do_lower_case)
    assert tokenizer_of(list(SPECIAL_TOKENS) + sorted(set(words)), do_lower_case).tokenize(text) == words


@settings(max_examples=200)
@given(TEXT)
def test_offsets_ascend_and_point_into_the_text(shipped, text):
    encoding = WordPieceTokenizer(shipped, True).encode(text)
    assert encoding.ids.dtype == encoding.offsets.dtype == np.int32
    assert len(encoding.ids) == len(encoding.offsets)
    offsets = encoding.offsets.tolist()
    assert offsets == sorted(offsets)
    for index, offset in zip(encoding.ids, offsets):
        token = shipped.tokens[index]
        if index != shipped.unk:
            base = unicodedata.normalize("NFD", text.lower() if len(text.lower()) == len(text)
                                         else text[offset].lower())
            first = token[2:3] if token.startswith("##") and len(token) > 2 else token[0]
            assert first in base or first in unicodedata.normalize("NFD", text[offset].lower())


@given(st.lists(TEXT, max_size=4))
def test_what_was_encoded_before_changes_nothing(texts):
    tokenizer = tokenizer_of()
    for text in texts + texts:
        assert tokenizer.tokenize(text) == tokenizer_of().tokenize(text)


@pytest.mark.parametrize("text, tokens, offsets", [
    ("", "", []),
    (" \t\u3000\n", "", []),
    ("北京ABC", "北 京 abc", [0, 1, 2]),
    ("Unaffable", "un ##aff ##able", [0, 2, 5]),
    ("xyz", "[UNK]", [0]),
    ("Café，cafe\u0301", "cafe ， cafe", [0, 4, 5]),
    ("  1 23,a", "1 [UNK] , a", [2, 4, 6, 7]),
    ("123", "1 ##2 ##3", [0, 1, 2]),
    ("a\u200bb\0c", "abc", [0]),
    ("\u200ba\u2028a", "a a", [1, 3]),
    ("\uf900", "豈", [0]),                                  # a compatibility character, normalized to its own
    ("İa", "[UNK]", [0]),
    ("a" * 200, "[UNK]", [0]),
    ("[MASK]", "[UNK] [UNK] [UNK]", [0, 1, 5]),            # text is never a special token
])
def test_encode(text, tokens, offsets):
    tokenizer = tokenizer_of()
    assert " ".join(tokenizer.tokenize(text)) == tokens
    assert tokenizer.encode(text).offsets.tolist() == offsets


def test_a_word_may_have_200_characters():
    tokenizer = tokenizer_of(ENTRIES + ["##a"])
    assert tokenizer.tokenize("a" * 200) == ["a"] + ["##a"] * 199
    assert tokenizer.tokenize("a" * 201 + " a") == [UNK, "a"]


def test_case_is_kept_on_demand():
    assert tokenizer_of(ENTRIES + ["Abc", "é"],
                        do_lower_case=False).tokenize("Abc abc é") == ["Abc", "abc", "é"]


def test_the_memo_is_bounded(monkeypatch):
    monkeypatch.setattr("etl.text.tokenization._MEMO_ENTRIES", 3)
    tokenizer = tokenizer_of()
    for text in ("a", "b", "c", "d", "e", "abc " * 9, "x" * 65):
        tokenizer.tokenize(text)
        assert len(tokenizer._memo) <= 3 and "x" * 65 not in tokenizer._memo


def test_split_words():
    assert split_words("Café，OK", True) == [("cafe", [0, 1, 2, 3]), ("，", [4]), ("ok", [5, 6])]
    assert split_words("Café", False) == [("Café", [0, 1, 2, 3])]
    assert split_words("각", True) == [("\u1100\u1161\u11a8", [0, 0, 0])]
    assert split_words("\u200b", True) == []


def test_character_classes():
    assert [is_dropped(char) for char in "\0\ufffd\x07\u200b\xad\t\n a"] == [True] * 5 + [False] * 4
    assert [is_punctuation(char) for char in "!/:@[`{~，。「a1 中"] == [True] * 11 + [False] * 4
    assert [is_han(char) for char in "一鿿㐀䶿𠀀豈丽\u3007あ한a"] == [True] * 7 + [False] * 4


def test_special_ids_and_replaceable_ids():
    vocabulary = Vocabulary([PAD, "[unused1]", "a", UNK, CLS, SEP, MASK, "<S>", "<T>", "北", "", "##b", "[",
                             "[unused99]"], "test")
    assert (vocabulary.pad, vocabulary.unk, vocabulary.cls, vocabulary.sep,
            vocabulary.mask) == (0, 3, 4, 5, 6)
    assert [vocabulary.tokens[index] for index in vocabulary.replaceable_ids] == ["a", "北", "##b", "["]
    assert vocabulary.replaceable_ids.dtype == np.int32
    assert len(vocabulary) == 14


def test_twins_of_han():
    vocabulary = Vocabulary(list(SPECIAL_TOKENS) + ["北", "##北", "京", "a", "##a"], "test")
    assert vocabulary.continued_ids.tolist() == [0, 1, 2, 3, 4, 6, 6, 7, 8, 9]


def test_shipped_vocabulary_has_the_ids_of_the_released_checkpoints(shipped):
    assert (shipped.pad, shipped.unk, shipped.cls, shipped.sep, shipped.mask) == (0, 100, 101, 102, 103)


@pytest.mark.parametrize("tokens, message", [
    (["a"],
     "v: a vocabulary must hold [PAD] [UNK] [CLS] [SEP] [MASK]; missing: [PAD] [UNK] [CLS] [SEP] [MASK]"),
    ([PAD, UNK, CLS, SEP], "v: a vocabulary must hold [PAD] [UNK] [CLS] [SEP] [MASK]; missing: [MASK]"),
    ([UNK, PAD, CLS, SEP, MASK],
     "v: [PAD] must be the first entry (id 0), since records are padded with 0; got id 1"),
])
def test_bad_vocabulary(tokens, message):
    with pytest.raises(UserError) as error:
        Vocabulary(tokens, "v")
    assert str(error.value) == message


@pytest.mark.parametrize("content", [
    "\n".join(SPECIAL_TOKENS) + "\na\u2028b\n \u3000c\n",
    "\r\n".join(SPECIAL_TOKENS) + "\r\na\u2028b\r\n \u3000c",
    "\ufeff" + "\r\n".join(SPECIAL_TOKENS) + "\r\na\u2028b\r\n \u3000c\r\n"])
def test_only_newlines_end_an_entry(tmp_path, content):
    (tmp_path / "v.txt").write_bytes(content.encode("utf-8"))
    assert load_vocabulary(str(tmp_path / "v.txt")).tokens == list(SPECIAL_TOKENS) + ["a\u2028b", " \u3000c"]


def test_bad_utf8_names_file_and_line(tmp_path):
    path = str(tmp_path / "v.txt")
    (tmp_path / "v.txt").write_bytes(b"[PAD]\n\xff\n")
    with pytest.raises(UserError) as error:
        load_vocabulary(path)
    assert str(error.value).startswith(path + ": line 2: not UTF-8: ")


def test_missing_and_empty_vocabulary(tmp_path):
    with pytest.raises(OSError, match="gone.txt"):
        load_tokenizer(TokenizerConfig(str(tmp_path / "gone.txt")))
    (tmp_path / "v.txt").write_bytes(b"")
    with pytest.raises(UserError, match="v.txt: a vocabulary must hold"):
        load_vocabulary(str(tmp_path / "v.txt"))


def test_neither_vocabulary_nor_model():
    with pytest.raises(ValueError) as error:
        TokenizerConfig()
    assert str(error.value) == "vocab_file or spm_model_file must be given, got neither"


def test_missing_and_broken_sentencepiece_model(tmp_path):
    with pytest.raises(OSError, match="gone.model"):
        load_tokenizer(TokenizerConfig(spm_model_file=str(tmp_path / "gone.model")))
    (tmp_path / "x.model").write_bytes(b"no model")
    with pytest.raises(UserError, match="x.model: not a SentencePiece model"):
        load_tokenizer(TokenizerConfig(spm_model_file=str(tmp_path / "x.model")))


def test_a_vocabulary_is_no_sentencepiece_model_and_none_is_a_vocabulary(spm_model, tmp_path):
    with pytest.raises(UserError) as error:
        load_vocabulary(spm_model)
    assert str(error.value) == spm_model + ": a SentencePiece model: give it by --spm_model_file"
    (tmp_path / "spm.vocab").write_text("<pad>\t0\n<unk>\t0\n▁\t-2.5\n", encoding="utf-8")
    with pytest.raises(UserError) as error:
        load_vocabulary(str(tmp_path / "spm.vocab"))
    assert str(error.value) == ("%s: a list of SentencePiece's pieces: give the model that lies beside it by "
                                "--spm_model_file" % (tmp_path / "spm.vocab"))


@pytest.mark.parametrize("strips_marks, text, visible, positions", [
    (True, "人工智能", "人工智能", None),
    (True, "人\u200b工\xad智\ufeff能\ufe0f。", "人工智能。", [0, 2, 4, 6, 8]),
    (False, "人\u2060e\u0301\ufe0f", "人e\u0301\ufe0f", [0, 2, 3, 4]),
    (True, "\u200b", "", []),
    (True, "a\tb\nc\rd\x00", "a\tb\nc\rd", [0, 1, 2, 3, 4, 5, 6]),
])
def test_without_dropped(strips_marks, text, visible, positions):
    found, places = without_dropped(text, strips_marks)
    assert found == visible and (places if places is None else places.tolist()) == positions


def test_all_that_gives_no_token_is_dropped():
    text = "".join(map(chr, [*range(0xD800), *range(0xE000, 0x110000)]))
    visible = "".join(char for char in text if char in "\t\n\r" or char not in "\0\ufffd"
                      and unicodedata.category(char) not in ("Cc", "Cf", "Mn"))
    assert without_dropped(text, True)[0] == visible


@pytest.mark.parametrize("pieces, begin", [
    ("▁don ' t", [1, 0, 0]), ("▁na ï ve", [1, 0, 0]), ("▁pre - training", [1, 0, 0]), ("▁a ▁b c", [1, 1, 0]),
    ("▁他 去 图书馆 。", [1, 1, 1, 1]), ("▁他 去 ▁don ' t", [1, 1, 1, 0, 0]),
    ("▁ 他 去 ▁ ab", [1, 1, 1, 1, 0]), ("▁don ' t ▁他 去", [1, 0, 0, 1, 1]), ("a b ▁c", [0, 0, 1]), ("", [])])
def test_without_han_blanks_part_words(pieces, begin):
    pieces = pieces.split(" ") if pieces else []
    found = may_begin_word_by_blanks(np.array([piece.startswith("▁") for piece in pieces], bool),
                                     np.array([any(map(is_han, piece)) for piece in pieces], bool))
    assert found.dtype == bool and found.astype(int).tolist() == begin


def test_a_repeated_entry_names_both_lines(tmp_path):
    (tmp_path / "v.txt").write_text("[PAD]\n[UNK]\n[CLS]\n[SEP]\n[MASK]\n我\n爱\n我\n", encoding="utf-8")
    with pytest.raises(UserError) as error:
        load_vocabulary(str(tmp_path / "v.txt"))
    assert str(error.value) == "%s: lines 6 and 8 hold the same entry: 我" % (tmp_path / "v.txt")


@pytest.fixture(scope="module")
def spm_model(tmp_path_factory):
    """A model whose pieces are characters, ▁2020, and /12 with their commas, and ▁/."""
    import sentencepiece
    path = str(tmp_path_factory.mktemp("spm") / "spm.model")
    with open(path, "wb") as stream:
        sentencepiece.SentencePieceTrainer.Train(
            sentence_iterator=iter(["cafe x ~ \" ' 0 1 2 1/2 . , 我爱北京。"]), model_writer=stream,
            model_type="char", vocab_size=40, hard_vocab_limit=False, pad_id=0, unk_id=1, bos_id=-1,
            eos_id=-1, pad_piece="<pad>", unk_piece="<unk>", control_symbols=["[CLS]", "[SEP]", "[MASK]"],
            user_defined_symbols=["▁2020,", "/12,", "▁/"], minloglevel=2)
    return path


@pytest.mark.parametrize("text, pieces, offsets, ends", [
    ("café", "▁ c a f e", [0, 0, 1, 2, 3], [0, 1, 2, 3, 4]),                   # one character, or two
    ("cafe\u0301", "▁ c a f e", [0, 0, 1, 2, 3], [0, 1, 2, 3, 4]),
    (" ～\t ～ ", "▁ ~ ▁ ~", [1, 1, 4, 4], [1, 2, 4, 5]),                     # white space is collapsed
    ("``x''", "▁ \" x \"", [0, 0, 2, 3], [0, 1, 3, 4]),
    ("…", "▁ . . .", [0, 0, 0, 0], [0, 1, 1, 1]),
    ("我爱", "▁ 我 爱", [0, 0, 1], [0, 1, 2]),
    ("x 2020, x", "▁ x ▁ 2 0 2 0 , ▁ x", [0, 0, 2, 2, 3, 4, 5, 6, 8, 8], [0, 1, 2, 3, 4, 5, 6, 7, 8, 9]),
    ("1/12,", "▁ 1 / 1 2 ,", [0, 0, 1, 2, 3, 4], [0, 1, 2, 3, 4, 5]),          # no ▁ where there was none
    ("", "", [], []), ("\u0301 ", "", [], []),
])
def test_sentencepiece_sees_what_alberts_own_code_shows_it(spm_model, text, pieces, offsets, ends):
    tokenizer = SentencePieceTokenizer(spm_model, do_lower_case=True)
    assert tokenizer.tokenize(text) == pieces.split()
    encoding = tokenizer.encode(text)
    assert (encoding.offsets.tolist(), encoding.ends.tolist()) == (offsets, ends)
    assert {array.dtype for array in encoding} == {np.dtype(np.int32)}


@pytest.mark.parametrize("do_lower_case, prepared", [(True, "false σς"), (False, "FALSE ΣΣ")])
def test_preprocessing_lower_cases_when_asked(do_lower_case, prepared):
    text, positions = preprocess_text("  FALSE\u3000\u3000ΣΣ", do_lower_case)
    assert text == prepared and positions.tolist() == [2, 3, 4, 5, 6, 7, 9, 10]


def test_no_character_loses_its_position_in_preprocessing():
    for char in map(chr, [*range(0x3000), *range(0xA000, 0xA100), *range(0xF900, 0x10000)]):
        text, positions = preprocess_text("a" + char, True)
        assert len(text) == len(positions)
