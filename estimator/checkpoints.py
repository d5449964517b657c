"""Says what a checkpoint is; averages some; gives and takes those of Hugging Face's transformers; adopts a fine-tuned one.

  python -m estimator.checkpoints inspect --checkpoint output/pretrain
  python -m estimator.checkpoints average --output output/averaged/model.ckpt --checkpoint output/pretrain --last 5
  python -m estimator.checkpoints average --output output/averaged/model.ckpt \\
      --checkpoint output/pretrain/model.ckpt-9000 output/pretrain/model.ckpt-10000
  python -m estimator.checkpoints to_transformers --checkpoint output/finetune --output_dir output/transformers
  python -m estimator.checkpoints from_transformers --input_dir bert-base-chinese --output_dir output/bert
  python -m estimator.checkpoints adopt --checkpoint lcqmc_model/model.ckpt-11190 --albert_config_file tiny \\
      --vocab_file albert_tiny_zh/vocab.txt --task_name lcqmc --output_dir output/finetune
"""
import contextlib
import os
import sys
from dataclasses import dataclass
from typing import Any, Callable, Dict, Optional, Sequence, Tuple

import albert_config
from estimator.weights import model_folder
from etl.common.command_line import UserError, flag, run
from etl.text.tokenization import TokenizerConfig


@dataclass(frozen=True)
class InspectConfig:
    """The flags of `inspect`."""
    checkpoint: str = flag("", "checkpoint, or folder of one", required=True)


@dataclass(frozen=True)
class AverageConfig:
    """The flags of `average`."""
    checkpoint: Tuple[str, ...] = flag((), "checkpoints of one model; with --last, the folder of them", required=True)
    last: Optional[int] = flag(None, "how many of the folder's newest checkpoints to take")
    output: str = flag("", "prefix of the checkpoint to write", required=True)


@dataclass(frozen=True)
class ToTransformersConfig:
    """The flags of `to_transformers`."""
    checkpoint: str = flag("", "checkpoint, or folder of one, of plain BERT or Google's family", required=True)
    output_dir: str = flag("", "new folder for config.json, model.safetensors and the vocabulary", required=True)
    albert_config_file: Optional[str] = flag(None, "config by name or file, where none stands beside the checkpoint")
    vocab_file: Optional[str] = flag(None, "vocabulary, where none stands beside the checkpoint")
    do_lower_case: Optional[bool] = flag(None, "whether that one is of lower-cased text; without it true")


@dataclass(frozen=True)
class FromTransformersConfig:
    """The flags of `from_transformers`."""
    input_dir: str = flag("", "folder with config.json, model.safetensors and the vocabulary", required=True)
    output_dir: str = flag("", "new model folder", required=True)


@dataclass(frozen=True)
class AdoptConfig:
    """The flags of `adopt`: a classifier of the older tools becomes a folder that evaluation and export take."""
    checkpoint: str = flag("", "checkpoint of a fine-tuned model, or folder of one", required=True)
    output_dir: str = flag("", "new model folder", required=True)
    albert_config_file: str = flag("", "config by name or file", required=True)
    vocab_file: str = flag("", "vocabulary that it was trained with", required=True)
    task_name: str = flag("", "task that it was trained for; see estimator.finetune --list_tasks", required=True)
    labels: Tuple[str, ...] = flag((), "labels in the order of the classifier's outputs, where they are not the task's")
    max_seq_length: int = flag(128, "tokens of an example, as in its training")
    do_lower_case: bool = flag(True, "whether its vocabulary is of lower-cased text")


def main(argv: Optional[Sequence[str]] = None) -> int:
    argv = sys.argv[1:] if argv is None else list(argv)
    commands: Dict[str, Tuple[Any, Callable[[Any], Optional[int]]]] = {
        "inspect": (InspectConfig, _inspect), "average": (AverageConfig, _average),
                "to_transformers": (ToTransformersConfig, _to_transformers),
                "from_transformers": (FromTransformersConfig, _from_transformers), "adopt": (AdoptConfig, _adopt)}
    if argv and argv[0] in commands:
        config_class, command = commands[argv[0]]
        return run("estimator.checkpoints " + argv[0], __doc__, config_class, command, argv[1:])
    asked = argv[:1] in (["--help"], ["-h"])
    if argv and not asked:
        print("estimator.checkpoints: error: the first word must be one of %s, got %s (see --help)"
              % (", ".join(commands), argv[0]), file=sys.stderr)
        return 2
    with contextlib.suppress(BrokenPipeError):   # `head` has seen enough
        print(__doc__, file=sys.stdout if asked else sys.stderr, flush=True)
    return 0 if asked else 2


def _inspect(config: InspectConfig) -> None:
    from estimator.weights import checkpoint_files  # TensorFlow takes two seconds: --help need not wait
    print(checkpoint_files.describe(checkpoint_files.resolve(config.checkpoint, "checkpoint")))


def _average(config: AverageConfig) -> None:
    from estimator.weights import checkpoint_files, conversions
    if config.last is None:
        found = [checkpoint_files.resolve(checkpoint, "checkpoint") for checkpoint in config.checkpoint]
    elif len(config.checkpoint) == 1:
        found = checkpoint_files.newest(config.checkpoint[0], config.last)
    else:
        raise UserError("--last takes one folder as --checkpoint, got %d" % len(config.checkpoint))
    conversions.average(found, config.output)
    print("%s: mean of %d checkpoints: %s" % (config.output, len(found), ", ".join(map(os.path.basename, found))))


def _to_transformers(config: ToTransformersConfig) -> None:
    from estimator.weights import checkpoint_files, conversions
    checkpoint = checkpoint_files.resolve(config.checkpoint, "checkpoint")
    description = model_folder.beside(checkpoint)
    if description:
        for name in ("albert_config_file", "vocab_file", "do_lower_case"):
            if getattr(config, name) is not None:
                raise UserError("--%s is for checkpoints without a description, but %s has one: leave the flag out"
                                % (name, os.path.dirname(checkpoint)))
    elif config.albert_config_file and config.vocab_file:
        model = albert_config.load(config.albert_config_file)
        tokenizer = TokenizerConfig(config.vocab_file, config.do_lower_case is not False)
        description = model_folder.from_flags(model, tokenizer, model.max_position_embeddings)
    else:
        raise UserError("--checkpoint: beside %s there is no %s to say what it is: give --albert_config_file and --vocab_file"
                        % (checkpoint, model_folder.DESCRIPTION_FILE))
    class_name = conversions.to_transformers(checkpoint, description, config.output_dir)
    print("Wrote %s: transformers.%s.from_pretrained takes it" % (config.output_dir, class_name))


def _from_transformers(config: FromTransformersConfig) -> None:
    from estimator.weights import conversions
    for note in conversions.from_transformers(config.input_dir, config.output_dir):
        print("Note: " + note)
    print("Wrote %s: --init_checkpoint takes it" % config.output_dir)


def _adopt(config: AdoptConfig) -> None:
    from estimator.data.tasks import TASKS
    from estimator.weights import checkpoint_files, conversions
    if config.task_name not in TASKS:
        raise UserError("--task_name must be one of %s, got %s" % (", ".join(TASKS), config.task_name))
    model = albert_config.load(config.albert_config_file)
    tokenizer = TokenizerConfig(config.vocab_file, config.do_lower_case)
    task = TASKS[config.task_name]
    description = model_folder.from_flags(model, tokenizer, config.max_seq_length, task.name, config.labels or task.labels)
    conversions.adopt(checkpoint_files.resolve(config.checkpoint, "checkpoint"), description, config.output_dir)
    print("Wrote %s. Next: python -m serving.export --checkpoint_dir %s" % (config.output_dir, config.output_dir))


if __name__ == "__main__":
    sys.exit(main())
