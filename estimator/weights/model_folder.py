"""The files that describe a checkpoint, beside it, so that the next command needs no flags to read it.

A *model folder* has checkpoints and

  albert_config.json     the model's sizes
  vocab.txt, spm.model   what the tokenizer reads: one of the two
  model.json             everything else: length, task, labels, what it was trained on, how answers are read

model.json is written last: a folder that has it is complete.
"""
import os
from dataclasses import dataclass
from typing import Any, Dict, List, Mapping, NamedTuple, Optional, Sequence, Tuple

import albert_config
from albert_config import AlbertConfig
from estimator.model.kinds import CLASSES, KINDS, MULTI_LABEL, SPANS, TAGS
from etl.common import files, json_text
from etl.common.command_line import UserError
from etl.text.pairs import MIN_SEQ_LENGTH
from etl.text.tokenization import TokenizerConfig

FORMAT_VERSION = 1
CONFIG_FILE, VOCAB_FILE, SPM_FILE, DESCRIPTION_FILE = ("albert_config.json", "vocab.txt", "spm.model",
                                                       "model.json")
ON_DEV = "dev"                                 # thresholds of labels are found on dev examples
STATE_FILE = "checkpoint"                      # TensorFlow's list of the checkpoints beside it

_FIELDS: Dict[str, Any] = {
    "format_version": int, "do_lower_case": bool, "vocab_file": str, "vocab_sha256": str,
    "max_seq_length": int,
    "task": (str, type(None)), "labels": (list, type(None)), "data_manifest_sha256": (str, type(None))}


class Reading(NamedTuple):
    """How a model that answers with parts of a passage reads it.

    Attributes:
      doc_stride: tokens of a passage that its windows have in common.
      max_query_length: tokens of a question.
      max_answer_length: tokens of an answer.
      null_score_diff_threshold: no answer is given when its score is higher than the best answer's by more;
        None: there is always one.
    """
    doc_stride: int
    max_query_length: int
    max_answer_length: int
    null_score_diff_threshold: Optional[float]


class Tagging(NamedTuple):
    """How a model that labels the parts of a text reads it.

    Attributes:
      doc_stride: tokens of a text that its windows have in common.
      crf: whether it has learned which label follows which.
    """
    doc_stride: int
    crf: bool


class Labelling(NamedTuple):
    """How a model chooses among several labels.

    Attributes:
      label_threshold: the probability from which on a label is given, as a number in text, or ON_DEV.
    """
    label_threshold: str = "0.5"


@dataclass(frozen=True)
class ModelFolder:
    """A model folder's description of its checkpoints. A pretrained model has no task and no labels."""
    config: AlbertConfig
    tokenizer: TokenizerConfig
    max_seq_length: int
    task: Optional[str] = None
    labels: Tuple[str, ...] = ()  # by class index; () if the task has none, as in a regression
    data_manifest_sha256: Optional[str] = None     # of the pretraining data's manifest.json
    kind: str = CLASSES                            # of KINDS, where there is a task
    reading: Optional[Reading] = None              # where the kind is SPANS
    tagging: Optional[Tagging] = None              # where the kind is TAGS
    labelling: Optional[Labelling] = None          # where the kind is MULTI_LABEL

    def __post_init__(self) -> None:
        if not MIN_SEQ_LENGTH <= self.max_seq_length <= self.config.max_position_embeddings:
            raise ValueError(
                "max_seq_length must be in [%d, %d], the config's max_position_embeddings; got %d"
                % (MIN_SEQ_LENGTH, self.config.max_position_embeddings, self.max_seq_length))
        if len(set(self.labels)) != len(self.labels):
            raise ValueError("labels must differ from each other, got %s" % ", ".join(self.labels))
        if (self.kind == SPANS) != (self.reading is not None):
            raise ValueError("kind is %s, and reading is %s" % (self.kind, self.reading))
        if (self.kind == TAGS) != (self.tagging is not None):
            raise ValueError("kind is %s, and tagging is %s" % (self.kind, self.tagging))
        if (self.kind == MULTI_LABEL) != (self.labelling is not None):
            raise ValueError("kind is %s, and labelling is %s" % (self.kind, self.labelling))
        if self.kind == MULTI_LABEL and len(self.labels) < 2:
            raise ValueError("labels must be at least two where kind is %s" % self.kind)
        if self.kind == TAGS and not self.labels:
            raise ValueError("labels must be at least one where kind is %s" % self.kind)


def write(folder: str, description: ModelFolder) -> None:
    """Writes the description and a copy of the vocabulary to `folder`, replacing an older description."""
    tokenizer = description.tokenizer
    source, name = ((tokenizer.spm_model_file, SPM_FILE) if tokenizer.spm_model_file
                    else (tokenizer.vocab_file, VOCAB_FILE))
    os.makedirs(folder, exist_ok=True)
    vocabulary = os.path.join(folder, name)
    if not (os.path.exists(vocabulary) and os.path.samefile(source, vocabulary)):
        files.copy(source, vocabulary)
    files.write_json(os.path.join(folder, CONFIG_FILE), description.config.to_dict())
    files.write_json(os.path.join(folder, DESCRIPTION_FILE), _fields_of(description))


def is_described(folder: str, description: ModelFolder) -> bool:
    """Whether `folder` has the description that `write` would write."""
    try:
        return (_fields_of(read(folder)) == _fields_of(description)
                and read(folder).config == description.config)
    except (UserError, OSError):
        return False


def files_in(folder: str) -> List[str]:
    """Names of the files in `folder` that describe the model."""
    return [name for name in (CONFIG_FILE, VOCAB_FILE, SPM_FILE, DESCRIPTION_FILE)
            if os.path.isfile(os.path.join(folder, name))]


def beside(checkpoint: str) -> Optional[ModelFolder]:
    """The description beside a checkpoint; None without one, as for released checkpoints. Raises UserError as
    `read` does."""
    folder = os.path.dirname(checkpoint)
    return read(folder) if os.path.lexists(os.path.join(folder, DESCRIPTION_FILE)) else None


def write_state(folder: str, names: Sequence[str]) -> None:
    """Writes TensorFlow's list of the checkpoints in `folder`, by name, the newest last."""
    files.write_text(os.path.join(folder, STATE_FILE), 'model_checkpoint_path: "%s"\n' % names[-1] + "".join(
        'all_model_checkpoint_paths: "%s"\n' % name for name in names))


def has_checkpoint(folder: str) -> bool:
    """Whether `folder` lists a checkpoint, which need not exist."""
    return os.path.lexists(os.path.join(folder, STATE_FILE))


def read(folder: str, made_by: str = "estimator.finetune") -> ModelFolder:
    """Reads the description of the model in `folder`; its tokenizer points at the folder's own vocabulary.

    Raises UserError, naming file and field, for a folder without a model (`made_by` is the command that makes
    one), a missing or invalid field, or a vocabulary with which the model was not trained.
    """
    path = os.path.join(folder, DESCRIPTION_FILE)
    if not os.path.isfile(path):
        what = ("no model here (it has no %s)" % DESCRIPTION_FILE if os.path.isdir(folder)
                else "no such folder")
        raise UserError("%s: %s: run python -m %s first" % (folder, what, made_by))
    fields = _checked_fields(path, files.read_json(path))
    vocabulary = os.path.join(folder, fields["vocab_file"])
    if files.sha256_of_file(vocabulary) != fields["vocab_sha256"]:
        raise UserError("%s: vocab_sha256 is not that of %s: the vocabulary was changed after training"
                        % (path, vocabulary))
    kind = "spm_model_file" if fields["vocab_file"] == SPM_FILE else "vocab_file"
    try:
        return ModelFolder(
            config=albert_config.load(os.path.join(folder, CONFIG_FILE)),
            tokenizer=TokenizerConfig(do_lower_case=fields["do_lower_case"], **{kind: vocabulary}),
            max_seq_length=fields["max_seq_length"],
            task=fields["task"],
            labels=tuple(fields["labels"] or ()),
            data_manifest_sha256=fields["data_manifest_sha256"],
            kind=fields.get("kind", CLASSES),
            reading=Reading(**fields["reading"]) if "reading" in fields else None,
            tagging=Tagging(**fields["tagging"]) if "tagging" in fields else None,
            labelling=Labelling(**fields["labelling"]) if "labelling" in fields else None)
    except albert_config.ConfigError:
        raise                                      # names its own file and field
    except ValueError as error:
        raise UserError("%s: %s" % (path, error))


def _fields_of(description: ModelFolder) -> Dict[str, Any]:
    """The content of model.json."""
    tokenizer = description.tokenizer
    of_kind = {} if description.kind == CLASSES else {"kind": description.kind}
    how = {}
    if description.reading:
        how["reading"] = description.reading._asdict()
    if description.tagging:
        how["tagging"] = description.tagging._asdict()
    if description.labelling:
        how["labelling"] = description.labelling._asdict()
    return {"format_version": FORMAT_VERSION,
            "do_lower_case": tokenizer.do_lower_case,
            "vocab_file": SPM_FILE if tokenizer.spm_model_file else VOCAB_FILE,
            "vocab_sha256": files.sha256_of_file(tokenizer.vocabulary_file),
            "max_seq_length": description.max_seq_length,
            "task": description.task,
            "labels": list(description.labels) or None,
            "data_manifest_sha256": description.data_manifest_sha256, **of_kind, **how}


def _checked_fields(path: str, fields: Any) -> Mapping[str, Any]:
    if not isinstance(fields, dict):
        raise UserError("%s: must be a JSON object, got %s" % (path, type(fields).__name__))
    if fields.get("format_version", FORMAT_VERSION) != FORMAT_VERSION:
        raise UserError("%s: format_version must be %d, got %r; another version of this program wrote it"
                        % (path, FORMAT_VERSION, fields["format_version"]))
    for name, kind in _FIELDS.items():
        if name not in fields:
            raise UserError("%s: missing field %s" % (path, name))
        value = fields[name]
        if not isinstance(value, kind) or (kind is int and isinstance(value, bool)):
            raise UserError("%s: %s has a wrong type: %r" % (path, name, value))
    if fields["vocab_file"] not in (VOCAB_FILE, SPM_FILE):
        raise UserError("%s: vocab_file must be %s or %s, got %r"
                        % (path, VOCAB_FILE, SPM_FILE, fields["vocab_file"]))
    if fields.get("kind", CLASSES) not in KINDS:
        raise UserError("%s: kind must be one of %s, got %r" % (path, ", ".join(KINDS), fields["kind"]))
    if "reading" in fields:
        _check_reading(path, fields["reading"])
    if "tagging" in fields:
        _check_tagging(path, fields["tagging"])
    if "labelling" in fields:
        _check_labelling(path, fields["labelling"])
    if not all(isinstance(label, str) for label in fields["labels"] or ()):
        raise UserError("%s: labels must be strings, got %r" % (path, fields["labels"]))
    try:
        json_text.require_whole_characters(fields["labels"])
    except ValueError as error:
        raise UserError("%s: labels: %s" % (path, error))
    return fields


def _check_reading(path: str, found: Any) -> None:
    if not isinstance(found, dict) or set(found) != set(Reading._fields):
        raise UserError("%s: reading must be an object with %s" % (path, ", ".join(Reading._fields)))
    for name, value in found.items():
        is_threshold = name == "null_score_diff_threshold"
        if not (value is None or type(value) in (int, float)) if is_threshold else not (
                type(value) is int and value >= (0 if name == "doc_stride" else 1)):
            raise UserError("%s: reading: %s has a wrong value: %r" % (path, name, value))


def _check_tagging(path: str, found: Any) -> None:
    if not isinstance(found, dict) or set(found) != set(Tagging._fields):
        raise UserError("%s: tagging must be an object with %s" % (path, ", ".join(Tagging._fields)))
    if not (type(found["doc_stride"]) is int and found["doc_stride"] >= 0 and type(found["crf"]) is bool):
        raise UserError("%s: tagging: doc_stride must be a whole number from 0, and crf true or false; got %r"
                        % (path, found))


def _check_labelling(path: str, found: Any) -> None:
    if not isinstance(found, dict) or set(found) != set(Labelling._fields):
        raise UserError("%s: labelling must be an object with %s" % (path, ", ".join(Labelling._fields)))
    if not is_threshold(found["label_threshold"]):
        raise UserError("%s: labelling: label_threshold must be %s or a number in (0, 1), as text; got %r"
                        % (path, ON_DEV, found["label_threshold"]))


def is_threshold(value: Any) -> bool:
    """Whether a value may be the `label_threshold` of a Labelling."""
    try:
        return value == ON_DEV or (isinstance(value, str) and 0 < float(value) < 1)
    except ValueError:
        return False
