"""A tokenizer of Hugging Face's transformers → the vocabulary that ours reads.

Older releases write vocab.txt or spiece.model; newer ones tokenizer.json alone, which says all in one file
(https://huggingface.co/docs/tokenizers). Out of that one a vocabulary is written.
"""
import base64
import os
from typing import Any, Dict, List, Tuple

from etl.common import files
from etl.common.command_line import UserError
from etl.text.pairs import MIN_SEQ_LENGTH
from etl.text.tokenization import TokenizerConfig

CONFIG_FILE, JSON_FILE = "tokenizer_config.json", "tokenizer.json"
VOCAB_FILE, SPM_FILE = "vocab.txt", "spiece.model"


def read(folder: str, longest: int, scratch: str) -> Tuple[TokenizerConfig, int]:
    """The tokenizer and the longest sequence, at most `longest`.

    Args:
      folder: of the model.
      longest: the model's max_position_embeddings.
      scratch: folder for a vocabulary out of tokenizer.json.

    Raises UserError, naming file and field, when there is none or it works otherwise than ours.
    """
    path = os.path.join(folder, CONFIG_FILE)
    fields = files.read_json(path) if os.path.isfile(path) else {}
    if not isinstance(fields, dict):
        raise UserError("%s: must be a JSON object, got %s" % (path, type(fields).__name__))
    do_lower_case = fields.get("do_lower_case", True)
    if not isinstance(do_lower_case, bool):
        raise UserError("%s: do_lower_case must be true or false, got %r" % (path, do_lower_case))
    max_seq_length = fields.get("model_max_length") or longest           # where nobody knew, it is 10^30
    if not isinstance(max_seq_length, (int, float)) or max_seq_length < MIN_SEQ_LENGTH:
        raise UserError("%s: model_max_length must be at least %d, got %r"
                        % (path, MIN_SEQ_LENGTH, max_seq_length))
    vocabulary = {name: os.path.join(folder, name) for name in (VOCAB_FILE, SPM_FILE, JSON_FILE)}
    if os.path.isfile(vocabulary[VOCAB_FILE]):
        tokenizer = TokenizerConfig(vocabulary[VOCAB_FILE], do_lower_case)
    elif os.path.isfile(vocabulary[SPM_FILE]):
        tokenizer = TokenizerConfig(do_lower_case=do_lower_case, spm_model_file=vocabulary[SPM_FILE])
    elif os.path.isfile(vocabulary[JSON_FILE]):
        tokenizer = _written_out(vocabulary[JSON_FILE], scratch)
    else:
        raise UserError("%s: no vocabulary: neither %s is there" % (folder, " nor ".join(vocabulary)))
    return tokenizer, int(min(max_seq_length, longest))


def _written_out(path: str, scratch: str) -> TokenizerConfig:
    """The tokenizer that tokenizer.json describes, with its vocabulary in a file of its own in `scratch`."""
    fields = files.read_json(path)
    try:
        model, parts = fields["model"], _parts(fields["normalizer"])
        if model.get("type", "WordPiece") == "WordPiece":
            return _word_piece(path, fields, scratch)
        if model["type"] == "Unigram":
            return _unigram(path, fields, parts, scratch)
        raise ValueError("model.type must be WordPiece or Unigram, got %s" % model["type"])
    except (KeyError, TypeError, AttributeError) as error:
        raise UserError("%s: no tokenizer of BERT or ALBERT: %s %s" % (path, type(error).__name__, error))
    except ValueError as error:
        raise UserError("%s: %s" % (path, error))


def _word_piece(path: str, fields: Dict[str, Any], scratch: str) -> TokenizerConfig:
    model, normalizer = fields["model"], fields["normalizer"]
    lowercase = normalizer["lowercase"]
    for name, got, wanted in (
            ("normalizer.type", normalizer["type"], ("BertNormalizer",)),
            ("normalizer.lowercase", lowercase, (True, False)),
            ("normalizer.strip_accents", normalizer["strip_accents"], (None, lowercase)),
            ("normalizer.handle_chinese_chars", normalizer["handle_chinese_chars"], (True,)),
            ("normalizer.clean_text", normalizer["clean_text"], (True,)),
            ("model.continuing_subword_prefix", model["continuing_subword_prefix"], ("##",)),
            ("model.unk_token", model["unk_token"], ("[UNK]",))):
        if got not in wanted:
            raise ValueError("%s must be %s, got %r" % (name, " or ".join(map(repr, wanted)), got))
    ids = dict(model["vocab"])
    ids.update((token["content"], token["id"]) for token in fields.get("added_tokens") or ())
    vocab_file = os.path.join(scratch, VOCAB_FILE)
    files.write_text(vocab_file, "".join(token + "\n" for token in _by_id(ids)))
    return TokenizerConfig(vocab_file, lowercase)


def _by_id(ids: Dict[str, int]) -> List[str]:
    tokens = sorted(ids, key=ids.__getitem__)
    if [ids[token] for token in tokens] != list(range(len(tokens))):
        raise ValueError("the ids of the vocabulary must be 0, 1, … without a gap")
    odd = [token for token in tokens if "\n" in token]
    if odd:
        raise ValueError("an entry with a line break has no place in %s: %r" % (VOCAB_FILE, odd[0]))
    return tokens


def _unigram(path: str, fields: Dict[str, Any], parts: List[Dict[str, Any]], scratch: str) -> TokenizerConfig:
    """A SentencePiece model with the same pieces, scores and normalization."""
    from sentencepiece import sentencepiece_model_pb2 as proto
    model = proto.ModelProto()
    is_special = {token["id"]: token["special"] for token in fields.get("added_tokens") or ()}
    kinds = proto.ModelProto.SentencePiece
    for number, (piece, score) in enumerate(fields["model"]["vocab"]):
        kind = kinds.UNKNOWN if number == fields["model"]["unk_id"] else {
            True: kinds.CONTROL, False: kinds.USER_DEFINED, None: kinds.NORMAL}[is_special.get(number)]
        model.pieces.add(piece=piece, score=score, type=kind)
    model.trainer_spec.model_type = proto.TrainerSpec.UNIGRAM
    model.trainer_spec.unk_id = fields["model"]["unk_id"]
    for part in parts:
        if part["type"] == "Precompiled":
            model.normalizer_spec.precompiled_charsmap = base64.b64decode(part["precompiled_charsmap"])
    spm_file = os.path.join(scratch, SPM_FILE)
    with files.atomic_write(spm_file) as stream:
        stream.write(model.SerializeToString())
    return TokenizerConfig(do_lower_case=any(part["type"] == "Lowercase" for part in parts),
                           spm_model_file=spm_file)


def _parts(normalizer: Any) -> List[Dict[str, Any]]:
    """The steps of a normalizer, one behind the other."""
    if normalizer is None:
        return []
    if normalizer["type"] == "Sequence":
        return [part for inner in normalizer["normalizers"] for part in _parts(inner)]
    return [normalizer]
