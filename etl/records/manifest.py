"""The description of a build, `manifest.json` beside its shards: written last, so a folder that has one is
complete."""
import dataclasses
import os
from dataclasses import dataclass
from typing import Any, Dict, NamedTuple, Optional, Tuple

from etl.common.command_line import UserError, fault_of_name
from etl.common.files import read_json, write_json
from etl.text.tokenization import TokenizerConfig

FILE_NAME = "manifest.json"
FORMAT = "chinese-albert-pretraining-data/1"


class Shard(NamedTuple):
    """A TFRecord file: its path below the folder, its numbers of records and bytes, and its SHA-256."""
    path: str
    records: int
    bytes: int
    sha256: str


# The file's structure: a type, an object with these fields, a list of any length, or a list of exactly these.
_NAME = Optional[str]
_SHARD = {"path": str, "records": int, "bytes": int, "sha256": str}
_FIELDS = {
    "train": [_SHARD], "eval": [_SHARD], "max_seq_length": int, "max_predictions_per_seq": int,
    "tokenizer": {"vocab_file": _NAME, "do_lower_case": bool, "spm_model_file": _NAME},
    "vocab_size": int, "vocab_sha256": str, "features": [(str, str, int)], "flags": dict, "inputs": [dict],
    "versions": dict, "counters": dict,
}
COUNTS = "counts"                              # see `checked`
_KINDS = {str: "a string", int: "an integer of at least 0", bool: "true or false", dict: "an object",
          list: "a list"}


@dataclass(frozen=True)
class Manifest:
    """The facts of one build that later stages need, and its statistics.

    Attributes:
      train, eval: the shards of each part, in order.
      max_seq_length, max_predictions_per_seq: lengths of every record.
      tokenizer: how the text was tokenized; `vocab_file` is the copy that lies beside the manifest.
      vocab_size, vocab_sha256: of the vocabulary.
      features: (name, dtype, length) of each feature.
      flags, inputs, versions, counters: all settings, the inputs' fingerprints, library versions, counts.
    """
    train: Tuple[Shard, ...]
    eval: Tuple[Shard, ...]
    max_seq_length: int
    max_predictions_per_seq: int
    tokenizer: TokenizerConfig
    vocab_size: int
    vocab_sha256: str
    features: Tuple[Tuple[str, str, int], ...]
    flags: Dict[str, Any]
    inputs: Tuple[Dict[str, Any], ...]
    versions: Dict[str, str]
    counters: Dict[str, Any]


def write(folder: str, manifest: Manifest) -> None:
    """Writes the manifest atomically."""
    write_json(os.path.join(folder, FILE_NAME), dict(dataclasses.asdict(manifest), format=FORMAT,
                                                     train=[shard._asdict() for shard in manifest.train],
                                                     eval=[shard._asdict() for shard in manifest.eval]))


def read(folder: str) -> Manifest:
    """Reads a folder's manifest; the tokenizer's files are prefixed with the folder.

    Raises UserError, naming file and field, if there is none, or a field is missing, has the wrong type or
    contradicts another.
    """
    path = os.path.join(folder, FILE_NAME)
    if not os.path.exists(path):
        raise UserError("%s: no such file; python -m etl.build_pretrain writes it when a build is complete"
                        % path)
    fields = read_json(path)
    if not isinstance(fields, dict) or fields.pop("format", None) != FORMAT:
        raise UserError("%s: not a manifest of format %s" % (path, FORMAT))
    try:
        fields = checked(fields, _FIELDS, "")
        tokenizer = TokenizerConfig(**fields["tokenizer"])
        for name in [shard["path"] for part in ("train", "eval") for shard in fields[part]] + [
                tokenizer.vocab_file, tokenizer.spm_model_file]:
            if name and fault_of_name(name):
                raise ValueError("the name of a file %s" % fault_of_name(name))
        fields["tokenizer"] = dataclasses.replace(tokenizer, **{
            name: os.path.join(folder, getattr(tokenizer, name))
            for name in ("vocab_file", "spm_model_file") if getattr(tokenizer, name)})
        for part in ("train", "eval"):
            fields[part] = tuple(Shard(**shard) for shard in fields[part])
        lengths = {name: length for name, _, length in fields["features"]}
        for name, field in (("input_ids", "max_seq_length"), ("masked_lm_ids", "max_predictions_per_seq")):
            if lengths.get(name) != fields[field]:
                raise ValueError("features must hold %s of length %d, which is %s, got %s"
                                 % (name, fields[field], field, lengths.get(name)))
        return Manifest(**fields)
    except ValueError as error:
        raise UserError("%s: %s" % (path, error))


def checked(value: Any, wanted: Any, field: str) -> Any:
    """The value without unknown fields, lists as tuples. Raises ValueError naming the invalid field.

    Args:
      wanted: str, bool, dict, list, or int (of at least 0); {name: wanted}; [wanted] for a list of any
        length, (wanted, …) for a list of just these; COUNTS for an object that holds integers.
    """
    if wanted is COUNTS:
        _require_type(value, dict, field)
        return {name: checked(count, int, _below(field, name)) for name, count in value.items()}
    if isinstance(wanted, dict):
        _require_type(value, dict, field)
        missing = [name for name in wanted if name not in value]
        if missing:
            raise ValueError("missing field %s" % ", ".join(_below(field, name) for name in missing))
        return {name: checked(value[name], kind, _below(field, name)) for name, kind in wanted.items()}
    if isinstance(wanted, list):
        _require_type(value, list, field)
        return tuple(checked(item, wanted[0], "%s[%d]" % (field, index)) for index, item in enumerate(value))
    if isinstance(wanted, tuple):
        _require_type(value, list, field)
        if len(value) != len(wanted):
            raise ValueError("%s must hold %d values, got %d" % (field, len(wanted), len(value)))
        return tuple(checked(item, kind, "%s[%d]" % (field, index)) for index,
                     (item, kind) in enumerate(zip(value, wanted)))
    if not (wanted is _NAME and value is None):
        _require_type(value, str if wanted is _NAME else wanted, field)
    return value


def _below(field: str, name: str) -> str:
    return "%s.%s" % (field, name) if field else name


def _require_type(value: Any, kind: type, field: str) -> None:
    if not isinstance(value, kind) or isinstance(value, int) and kind is int and (
            isinstance(value, bool) or not 0 <= value < 1 << 63):
        raise ValueError("%s must be %s, got %.60r" % (field, _KINDS[kind], value))
