"""ALBERT configurations: sizes, model family, and the shipped configs and vocabulary.

`load("tiny")` gives a shipped config, `load("path/to/config.json")` any other. The fields determine the
family:

  embedding_size absent                 plain BERT: every layer has its own weights, embeddings are as wide as
                                        the model
  embedding_size, no num_hidden_groups  the albert_zh family: one shared layer, embeddings normalized at the
                                        model's width
  num_hidden_groups                     Google's family: groups of layers, embeddings normalized at their
                                        own width
  num_hidden_groups, num_ffn_groups>1   Google's "fast" variant: feed-forward kernels split into groups

The published configs of that variant lack num_ffn_groups, for its code has no other number than
FAST_FFN_GROUPS. One with more groups of layers than layers can be nothing else; of others the checkpoint's
shapes tell (`estimator.weights.descriptions`).
"""
import dataclasses
import json
import os
from dataclasses import dataclass
from typing import Any, Dict, List, Mapping, Optional

VERSION = "0.1.0"                              # of the whole project
_HERE = os.path.dirname(os.path.abspath(__file__))

FAST_FFN_GROUPS = 16                           # of Google's fast variant
ACTIVATIONS = ("gelu", "relu", "swish", "tanh", "linear")

# Fields that released configs have and no released model reads. They are accepted so that released files
# load.
UNUSED_FIELDS = frozenset([
    "directionality", "pooler_type", "pooler_fc_size", "pooler_num_attention_heads", "pooler_num_fc_layers",
    "pooler_size_per_head", "net_structure_type", "gap_size", "num_memory_blocks", "down_scale_factor",
    "layers_to_keep",
])


class ConfigError(ValueError):
    """An unusable model config or vocabulary; the message names the file, the field and both values."""


@dataclass(frozen=True)
class AlbertConfig:
    """Sizes of one model. Field names are those of the released config files.

    Raises ConfigError if a value is out of range or two values contradict each other.
    """
    vocab_size: int
    hidden_size: int
    num_hidden_layers: int
    num_attention_heads: int
    intermediate_size: int
    max_position_embeddings: int
    embedding_size: Optional[int] = None       # None: plain BERT, embeddings of hidden_size
    hidden_act: str = "gelu"
    hidden_dropout_prob: float = 0.0
    attention_probs_dropout_prob: float = 0.0
    type_vocab_size: int = 2
    initializer_range: float = 0.02
    ln_type: Optional[str] = None  # "postln" or "preln", the albert_zh family only; None means postln
    num_hidden_groups: Optional[int] = None    # Google's family only
    inner_group_num: Optional[int] = None      # Google's family only; None means 1
    num_ffn_groups: int = 1                    # FAST_FFN_GROUPS in Google's fast variant

    def __post_init__(self) -> None:
        for field in dataclasses.fields(self):
            _check_type(field, getattr(self, field.name))
        for name in ("vocab_size", "hidden_size", "num_hidden_layers", "num_attention_heads",
                     "intermediate_size", "max_position_embeddings", "type_vocab_size", "num_ffn_groups"):
            _require(getattr(self, name) >= 1, name, getattr(self, name), "at least 1")
        for name in ("embedding_size", "num_hidden_groups", "inner_group_num"):
            value = getattr(self, name)
            _require(value is None or value >= 1, name, value, "at least 1")
        for name in ("hidden_dropout_prob", "attention_probs_dropout_prob"):
            _require(0.0 <= getattr(self, name) < 1.0, name, getattr(self, name), "in [0, 1)")
        _require(0 < self.initializer_range < float("inf"), "initializer_range", self.initializer_range,
                 "above 0 and finite")
        _require(self.hidden_act in ACTIVATIONS, "hidden_act", self.hidden_act,
                 "one of " + ", ".join(ACTIVATIONS))
        _require(self.ln_type in (None, "postln", "preln"), "ln_type", self.ln_type, "postln or preln")
        _require(self.hidden_size % self.num_attention_heads == 0, "hidden_size", self.hidden_size,
                 "a multiple of num_attention_heads, which is %d" % self.num_attention_heads)
        if self.num_hidden_groups is None:
            _require(self.inner_group_num is None, "inner_group_num", self.inner_group_num,
                     "absent, since num_hidden_groups is absent")
            _require(self.num_ffn_groups == 1, "num_ffn_groups", self.num_ffn_groups,
                     "1, since num_hidden_groups is absent")
        else:
            _require(self.embedding_size is not None, "embedding_size", None,
                     "present, since num_hidden_groups is")
            _require(self.ln_type is None, "ln_type", self.ln_type,
                     "absent, since num_hidden_groups is present")
            for name in ("hidden_size", "intermediate_size"):
                _require(getattr(self, name) % self.num_ffn_groups == 0, name, getattr(self, name),
                         "a multiple of num_ffn_groups, which is %d" % self.num_ffn_groups)
        if self.embedding_size is None:
            _require(self.ln_type is None, "ln_type", self.ln_type, "absent, since embedding_size is absent")

    @property
    def family(self) -> str:
        """"albert_zh", "google" or "bert"; see the module's docstring."""
        if self.embedding_size is None:
            return "bert"
        return "albert_zh" if self.num_hidden_groups is None else "google"

    @property
    def head_size(self) -> int:
        return self.hidden_size // self.num_attention_heads

    def to_dict(self) -> Dict[str, Any]:
        """The fields as in a config file, without those that are None."""
        return {name: value for name, value in dataclasses.asdict(self).items() if value is not None}


def load(name_or_path: str) -> AlbertConfig:
    """Reads a shipped config by name (see `shipped_names`) or any config file by path.

    Raises:
      ConfigError: no such file, not a JSON object, a field unknown, missing or out of range; names file,
        field and value.
    """
    path = os.path.join(_HERE, name_or_path + ".json") if name_or_path in shipped_names() else name_or_path
    if not os.path.isfile(path):
        raise ConfigError("albert_config_file: %s is neither a file nor one of the shipped configs: %s"
                          % (name_or_path, ", ".join(shipped_names())))
    try:
        with open(path, encoding="utf-8") as stream:
            fields = json.load(stream)
    except (ValueError, RecursionError) as error:
        # JSONDecodeError and UnicodeDecodeError are both ValueErrors
        raise ConfigError("%s: not a JSON file in UTF-8: %s" % (path, error))
    try:
        return from_dict(fields)
    except (ConfigError, RecursionError) as error:    # the latter for a value that cannot be printed
        raise ConfigError("%s: %s" % (path, error))


def from_dict(fields: Mapping[str, Any]) -> AlbertConfig:
    """Checks the names in `fields` and builds the config. Raises ConfigError for an unknown or a
    missing field.

    num_ffn_groups may be missing from the config of a fast variant; see the module's docstring.
    """
    if not isinstance(fields, Mapping):
        raise ConfigError("must be a JSON object, got %s" % type(fields).__name__)
    known = {field.name: field for field in dataclasses.fields(AlbertConfig)}
    unknown = sorted(set(fields) - set(known) - UNUSED_FIELDS)
    if unknown:
        raise ConfigError("unknown field %s; known are %s" % (", ".join(unknown), ", ".join(sorted(known))))
    missing = [name for name, field in known.items()
               if field.default is dataclasses.MISSING and name not in fields]
    if missing:
        raise ConfigError("missing field %s" % ", ".join(missing))
    config = AlbertConfig(**{name: value for name, value in fields.items() if name in known})
    if "num_ffn_groups" not in fields and (config.num_hidden_groups or 0) > config.num_hidden_layers:
        return dataclasses.replace(config, num_ffn_groups=FAST_FFN_GROUPS)
    return config


def shipped_names() -> List[str]:
    """Names that `load` accepts instead of a path."""
    return sorted(name[:-len(".json")] for name in os.listdir(_HERE) if name.endswith(".json"))


def vocab_path() -> str:
    """The shipped vocabulary: 21,128 entries, one per line, special tokens at the ids of the released
    checkpoints."""
    return os.path.join(_HERE, "vocab.txt")


def _require(holds: bool, field: str, got: Any, wanted: str) -> None:
    if not holds:
        raise ConfigError("%s must be %s, got %s" % (field, wanted, got))


def _check_type(field: "dataclasses.Field[Any]", value: Any) -> None:
    if value is None and field.default is None:
        return
    wanted = {int: (int,), float: (int, float), str: (str,), Optional[int]: (int,),
              Optional[str]: (str,)}[field.type]
    if not isinstance(value, wanted) or isinstance(value, bool):
        name = {int: "an integer", float: "a number", str: "a string"}[wanted[-1]]
        raise ConfigError("%s must be %s, got %r" % (field.name, name, value))
