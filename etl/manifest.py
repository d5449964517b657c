"""What a build wrote, in `manifest.json` beside its shards: written last, so a folder that holds one is complete."""
import dataclasses
import os
from dataclasses import dataclass
from typing import Any, Dict, NamedTuple, Tuple

from etl.command_line import UserError
from etl.files import read_json, write_json
from etl.tokenization import TokenizerConfig

FILE_NAME = "manifest.json"
FORMAT = "chinese-albert-pretraining-data/1"


class Shard(NamedTuple):
    """A TFRecord file: its path below the folder, how many records and bytes it holds, and its SHA-256."""
    path: str
    records: int
    bytes: int
    sha256: str


@dataclass(frozen=True)
class Manifest:
    """The facts of one build that later stages need, and the account it gives of itself.

    Attributes:
      train, eval: the shards of each part, in order.
      max_seq_length, max_predictions_per_seq: lengths of every record.
      tokenizer: how the text was tokenized; `vocab_file` is the copy that lies beside the manifest.
      vocab_size, vocab_sha256: of the vocabulary.
      features: (name, dtype, length) of each feature.
      flags, inputs, versions, counters: all settings, the inputs' fingerprints, library versions, what was counted.
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
    """Reads a folder's manifest; the tokenizer's files get the folder put before them.

    Raises UserError when there is none, or it lacks a field.
    """
    path = os.path.join(folder, FILE_NAME)
    if not os.path.exists(path):
        raise UserError("%s: no such file; python -m etl.build_pretrain writes it when a build is complete" % path)
    fields = read_json(path)
    if not isinstance(fields, dict) or fields.pop("format", None) != FORMAT:
        raise UserError("%s: not a manifest of format %s" % (path, FORMAT))
    names = [field.name for field in dataclasses.fields(Manifest)]
    missing = sorted(set(names) - set(fields))
    if missing:
        raise UserError("%s: missing field %s" % (path, ", ".join(missing)))
    try:
        for part in ("train", "eval"):
            fields[part] = tuple(Shard(**shard) for shard in fields[part])
        tokenizer = TokenizerConfig(**fields["tokenizer"])
        fields["tokenizer"] = dataclasses.replace(tokenizer, **{
            name: os.path.join(folder, getattr(tokenizer, name))
            for name in ("vocab_file", "spm_model_file") if getattr(tokenizer, name)})
        fields["features"] = tuple(tuple(feature) for feature in fields["features"])
        fields["inputs"] = tuple(fields["inputs"])
        return Manifest(**{name: fields[name] for name in names})
    except (TypeError, ValueError) as error:
        raise UserError("%s: %s" % (path, error))
