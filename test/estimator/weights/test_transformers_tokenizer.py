import json

import pytest

from estimator.weights import transformers_tokenizer
from etl.common.command_line import UserError
from etl.text.tokenization import load_tokenizer

SPECIAL = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]"]
WORD_PIECE = {
    "added_tokens": [{"id": number, "content": token, "special": True}
                     for number, token in enumerate(SPECIAL)],
    "normalizer": {"type": "BertNormalizer", "clean_text": True, "handle_chinese_chars": True,
                   "strip_accents": None, "lowercase": False},
    "model": {"type": "WordPiece", "unk_token": "[UNK]", "continuing_subword_prefix": "##",
              "vocab": {token: number
                        for number, token in enumerate(SPECIAL + ["天", "\u2028", "##a", "a"])}}}
PIECES = [["<pad>", 0.0], ["<unk>", 0.0], ["[CLS]", 0.0], ["[SEP]", 0.0], ["[MASK]", 0.0], ["(", 0.0],
          ["▁", -2.0], ["天", -1.0], ["地", -1.5], ["天地", -1.2]]
UNIGRAM = {
    "added_tokens": [{"id": number, "content": piece, "special": number < 5}
                     for number, (piece, _) in enumerate(PIECES[:6])],
    "normalizer": {"type": "Sequence", "normalizers": [{"type": "NFKD"}, {"type": "Lowercase"}]},
    "model": {"type": "Unigram", "unk_id": 1, "vocab": PIECES}}


@pytest.fixture
def read(tmp_path):
    def read(fields, longest=16):
        (tmp_path / "tokenizer.json").write_text(json.dumps(fields), encoding="utf-8")
        return transformers_tokenizer.read(str(tmp_path), longest, str(tmp_path / "scratch"))
    return read


def changed(part, **fields):
    return dict(WORD_PIECE, **{part: dict(WORD_PIECE[part], **fields)})


def test_word_pieces_out_of_one_file(read):
    config, longest = read(WORD_PIECE)
    assert (config.do_lower_case, longest) == (False, 16)
    tokenizer = load_tokenizer(config)
    assert tokenizer.vocabulary.tokens == SPECIAL + ["天", "\u2028", "##a", "a"]
    assert tokenizer.tokenize("天aa") == ["天", "a", "##a"]


def test_a_sentencepiece_model_out_of_one_file(read):
    config, _ = read(UNIGRAM)
    tokenizer = load_tokenizer(config)
    assert config.do_lower_case and tokenizer.vocabulary.tokens[:2] == ["[PAD]", "[UNK]"]
    assert tokenizer.tokenize("天地(地")[-3:] == ["天地", "(", "地"]


@pytest.mark.parametrize("fields, message", [
    (changed("normalizer", strip_accents=True), "normalizer.strip_accents must be None or False, got True"),
    (changed("normalizer", handle_chinese_chars=False), "handle_chinese_chars must be True, got False"),
    (changed("model", continuing_subword_prefix="@@"), "continuing_subword_prefix must be '##', got '@@'"),
    (changed("model", type="BPE"), "model.type must be WordPiece or Unigram, got BPE"),
    (changed("model", vocab={"[PAD]": 0, "天": 7}),
     "the ids of the vocabulary must be 0, 1, … without a gap"),
    (changed("model", vocab=dict(WORD_PIECE["model"]["vocab"], **{"a\nb": 9})),
     "an entry with a line break"),
    ({"model": {}}, "no tokenizer of BERT or ALBERT: KeyError 'normalizer'"), ([], "no tokenizer of BERT"),
])
def test_one_that_works_otherwise(read, fields, message):
    with pytest.raises(UserError, match="tokenizer.json: " + message if "BERT" in message else message):
        read(fields)
