"""Trains a classifier on labelled sentences or pairs, evaluates it and predicts with it.

Starts from a pretrained checkpoint, whose folder says config and vocabulary. Without flags it learns the shipped
sentence pairs from what python -m estimator.pretrain wrote.

  python -m estimator.finetune --do_train=true --do_eval=true
  python -m estimator.finetune --task_name lcqmc --data_dir lcqmc --init_checkpoint albert_tiny_zh \\
      --albert_config_file tiny --vocab_file vocab.txt --learning_rate 1e-4
"""
import json
import os
import time
from dataclasses import dataclass
from typing import Any, Dict, List, NamedTuple, Optional, Sequence, Tuple

import albert_config
from estimator import model_folder, npu, resume, tasks
from estimator.model_folder import ModelFolder
from estimator.tasks import DEV, TASKS, TEST, TRAIN, Task
from etl import files
from etl.command_line import UserError, flag, run
from etl.progress import clock
from etl.tokenization import TokenizerConfig, load_tokenizer

NO_CHECKPOINT = "none"
OPTIMIZERS = ("adamw", "lamb")
PROBABILITIES_FILE, PREDICTIONS_FILE = "test_results.tsv", "predictions.jsonl"

_SAMPLE = os.path.join(os.path.dirname(os.path.abspath(__file__)), "sample")


@dataclass(frozen=True)
class FinetuneConfig:
    """The flags of this command."""
    task_name: str = flag("sentence_pair", "task", tuple(sorted(TASKS)))
    data_dir: str = flag(_SAMPLE, "folder of train, dev and test files")
    output_dir: str = flag("output/finetune", "folder for checkpoints, event files and results")
    init_checkpoint: str = flag("output/pretrain", "checkpoint, or folder of one, to start from; none: random values")
    albert_config_file: Optional[str] = flag(None, "config by name or file; without it the one beside the checkpoint")
    vocab_file: Optional[str] = flag(None, "vocabulary; without it the one beside the checkpoint")
    do_lower_case: Optional[bool] = flag(None, "lower-case and strip accents; without it as the checkpoint was trained")
    max_seq_length: int = flag(128, "tokens of an example; longer ones are cut")
    do_train: bool = flag(True, "train")
    do_eval: bool = flag(True, "evaluate on the dev file")
    do_predict: bool = flag(False, "predict the test file")
    train_batch_size: int = flag(32, "examples of a training step")
    eval_batch_size: int = flag(8, "examples of an evaluation step")
    predict_batch_size: int = flag(8, "examples of a prediction step")
    optimizer: str = flag("adamw", "update rule", OPTIMIZERS)
    learning_rate: float = flag(5e-5, "highest learning rate")
    num_train_epochs: float = flag(3.0, "times the training examples are seen")
    warmup_proportion: float = flag(0.1, "share of the steps in which the learning rate rises")
    save_checkpoints_steps: int = flag(1000, "steps between checkpoints")
    keep_checkpoint_max: int = flag(5, "newest checkpoints that are kept")
    iterations_per_loop: int = flag(1, "steps the NPU runs between two calls of the host")
    log_steps: int = flag(100, "steps between lines of progress")
    random_seed: int = flag(12345, "of new values, order of examples and dropout")
    backend: str = flag(npu.AUTO, "where to run; auto takes an NPU that is there", npu.BACKENDS)

    def __post_init__(self):
        for name in ("max_seq_length", "train_batch_size", "eval_batch_size", "predict_batch_size", "log_steps",
                     "save_checkpoints_steps", "keep_checkpoint_max", "iterations_per_loop"):
            if getattr(self, name) < 1:
                raise ValueError("%s must be at least 1, got %d" % (name, getattr(self, name)))
        for name in ("learning_rate", "num_train_epochs"):
            if not getattr(self, name) > 0:
                raise ValueError("%s must be above 0, got %s" % (name, getattr(self, name)))
        if not 0 <= self.warmup_proportion <= 1:
            raise ValueError("warmup_proportion must be in [0, 1], got %s" % self.warmup_proportion)
        if not (self.do_train or self.do_eval or self.do_predict):
            raise ValueError("do_train, do_eval and do_predict are all false: nothing to do")

    @property
    def run_options(self) -> npu.RunOptions:
        return npu.RunOptions(self.save_checkpoints_steps, self.keep_checkpoint_max, self.log_steps, self.random_seed,
                              self.iterations_per_loop)


class Plan(NamedTuple):
    """All that is known before anything is written."""
    task: Task
    examples: Dict[str, List[tasks.Example]]   # by part
    arrays: Dict[str, Dict[str, Any]]          # by part, see tasks.encode_examples
    folder: ModelFolder
    backend: str
    num_train_steps: int
    start_step: int                            # of the latest checkpoint in the output folder
    init_checkpoint: Optional[str]             # prefix; None for random values, or where a checkpoint is gone on from


def main(argv: Optional[Sequence[str]] = None) -> int:
    return run("estimator.finetune", __doc__, FinetuneConfig, finetune, argv)


def finetune(config: FinetuneConfig) -> None:
    """Checks, trains, evaluates, predicts. Raises UserError for anything the user can mend, before a file is written."""
    import tensorflow.compat.v1 as tf          # takes two seconds: --help need not wait
    tf.logging.set_verbosity(tf.logging.ERROR)
    plan = make_plan(config)
    estimator = npu.make_estimator(plan.backend, _model_fn(config, plan), config.output_dir, config.run_options)
    if config.do_train:
        train(config, plan, estimator)
    if config.do_eval:
        evaluate(config, plan, estimator)
    if config.do_predict:
        predict(config, plan, estimator)
    print("Next: python -m serving.export --model_dir %s" % config.output_dir)


def make_plan(config: FinetuneConfig) -> Plan:
    """Reads and encodes the examples and checks checkpoint and output folder. Writes nothing."""
    task = TASKS[config.task_name]
    backend, reason = npu.choose_backend(config.backend)
    parts = [part for part, wanted in ((TRAIN, config.do_train), (DEV, config.do_eval), (TEST, config.do_predict)) if wanted]
    examples = {part: tasks.read_examples(task, config.data_dir, part) for part in parts}
    folder, source = describe_model(config, task)
    print("Task %s on %s (%s): %s" % (task.name, backend, reason, ", ".join(
        "{:,} {} examples".format(len(found), part) for part, found in examples.items())))
    for remark in resume.check_folder(config.output_dir, folder, config):
        print("Changed since the run before: " + remark)
    start_step = resume.latest_step(config.output_dir)
    if not (config.do_train or start_step):
        raise UserError("--output_dir: %s holds no checkpoint to evaluate or predict with: train first" % config.output_dir)
    num_train_steps = check_steps(config, backend, len(examples.get(TRAIN, ())))
    init_checkpoint = source if config.do_train and not start_step else None
    if init_checkpoint:
        from estimator.model_fn import check_init_checkpoint
        print(check_init_checkpoint(init_checkpoint, folder.config, len(task.labels)))
    tokenizer = load_tokenizer(folder.tokenizer)
    arrays = {part: tasks.encode_examples(found, tokenizer, config.max_seq_length, task.labels)
              for part, found in examples.items()}
    return Plan(task, examples, arrays, folder, backend, num_train_steps, start_step, init_checkpoint)


def describe_model(config: FinetuneConfig, task: Task) -> Tuple[ModelFolder, Optional[str]]:
    """What will stand beside the checkpoints, and the prefix of the checkpoint to start from.

    Config and vocabulary come from the flags, else from beside the checkpoint; without training, from --output_dir.
    """
    beside, prefix = None, None
    if not config.do_train:
        beside = model_folder.read(config.output_dir)
    elif config.init_checkpoint != NO_CHECKPOINT:
        beside, prefix = find_init_checkpoint(config.init_checkpoint)
    else:
        ...
