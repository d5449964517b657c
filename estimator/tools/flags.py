"""The flags of the commands `checkpoints` and `embed`."""
from dataclasses import dataclass
from typing import Optional, Tuple

from etl.common.command_line import flag

POOLED, MEAN, CLS = POOLINGS = ("pooled", "mean", "cls")


@dataclass(frozen=True)
class InspectConfig:
    """The flags of `inspect`."""
    checkpoint: str = flag("", "checkpoint, or folder of one", required=True)


@dataclass(frozen=True)
class AverageConfig:
    """The flags of `average`."""
    checkpoint: Tuple[str, ...] = flag((), "checkpoints of one model; with --last, their folder",
                                       required=True)
    last: Optional[int] = flag(None, "how many of the folder's newest checkpoints to take")
    output: str = flag("", "prefix of the checkpoint to write", required=True)


@dataclass(frozen=True)
class ToTransformersConfig:
    """The flags of `to_transformers`."""
    checkpoint: str = flag("", "checkpoint, or folder of one, of plain BERT or Google's family",
                           required=True)
    output_dir: str = flag("", "new folder for config.json, model.safetensors and the vocabulary",
                           required=True)
    albert_config_file: Optional[str] = flag(
        None, "config by name or file, if there is none beside the checkpoint")
    vocab_file: Optional[str] = flag(None, "vocabulary, if there is none beside the checkpoint")
    do_lower_case: Optional[bool] = flag(None, "whether that one is for lower-cased text; default: true")


@dataclass(frozen=True)
class FromTransformersConfig:
    """The flags of `from_transformers`."""
    input_dir: str = flag("", "folder with config.json, model.safetensors and the vocabulary", required=True)
    output_dir: str = flag("", "new model folder", required=True)
    task_name: Optional[str] = flag(None, "task that its classifier was trained for, for evaluation; without "
                                    "it the one it names, if there is such a task here")
    labels: Tuple[str, ...] = flag(
        (), "labels in the order of the classifier's outputs, where they are not those of config.json")


@dataclass(frozen=True)
class AdoptConfig:
    """The flags of `adopt`, which turns a classifier of the older tools into a folder that evaluation and
    export accept."""
    checkpoint: str = flag("", "checkpoint of a fine-tuned model, or folder of one", required=True)
    output_dir: str = flag("", "new model folder", required=True)
    albert_config_file: str = flag("", "config by name or file", required=True)
    vocab_file: str = flag("", "vocabulary that it was trained with", required=True)
    task_name: str = flag("", "task that it was trained for; see estimator.finetune --list_tasks",
                          required=True)
    labels: Tuple[str, ...] = flag(
        (), "labels in the order of the classifier's outputs, if they are not the task's")
    label2id: Optional[str] = flag(
        None, "entities: file of the number of each output, as a JSON object such as {\"O\": 1, \"B-PER\": "
        "2}, or a label and its number a line")
    max_seq_length: int = flag(128, "tokens per example, as in its training")
    do_lower_case: bool = flag(True, "whether its vocabulary is for lower-cased text")


@dataclass(frozen=True)
class EmbedConfig:
    """The flags of `embed`."""
    checkpoint_dir: str = flag("output/pretrain", "checkpoint, or its folder")
    albert_config_file: Optional[str] = flag(
        None, "config by name or file; default: the one beside the checkpoint")
    vocab_file: Optional[str] = flag(None, "vocabulary, if there is none beside the checkpoint")
    spm_model_file: Optional[str] = flag(None, "SentencePiece model, if there is none beside the checkpoint")
    input_file: Optional[str] = flag(None, "texts, one per line; default: standard input")
    output_file: Optional[str] = flag(None, "file ending in .npy or .jsonl; default: standard output")
    pooling: str = flag(MEAN, "how a text's vector is computed", POOLINGS)
    layer: int = flag(-1, "which layer mean and cls read: 0 is the lowest, -1 the highest")
    max_seq_length: int = flag(128, "tokens per text; longer ones are truncated")
    batch_size: int = flag(32, "texts per batch")

    def __post_init__(self) -> None:
        if self.batch_size < 1:
            raise ValueError("batch_size must be at least 1, got %d" % self.batch_size)
        if self.output_file and not self.output_file.endswith((".npy", ".jsonl")):
            raise ValueError("output_file must end in .npy or .jsonl, got %s" % self.output_file)
