"""Trains a classifier on labelled sentences or pairs, evaluates it and predicts with it.

Starts from a pretrained checkpoint, whose folder says config and vocabulary. Without flags it learns the shipped
sentence pairs from what python -m estimator.pretrain wrote.

  python -m estimator.finetune --do_train=true --do_eval=true
  python -m estimator.finetune --task_name lcqmc --data_dir lcqmc --init_checkpoint albert_tiny_zh \\
      --albert_config_file tiny --vocab_file vocab.txt --learning_rate 1e-4
"""
import dataclasses
import json
import os
from dataclasses import dataclass
from typing import Any, Dict, List, NamedTuple, Optional, Sequence, Tuple

import albert_config
from estimator import model_folder, npu, resume, tasks
from estimator.model_folder import ModelFolder
from estimator.tasks import DEV, TASKS, TEST, TRAIN, Task
from estimator.training_flags import TrainingFlags
from etl import files
from etl.command_line import UserError, flag, run
from etl.tokenization import TokenizerConfig, load_tokenizer

NO_CHECKPOINT = "none"
SAMPLE_TASK = "sentence_pair"
PROBABILITIES_FILE, PREDICTIONS_FILE = "test_results.tsv", "predictions.jsonl"

_SAMPLE = os.path.join(os.path.dirname(os.path.abspath(__file__)), "sample")


@dataclass(frozen=True)
class FinetuneConfig(TrainingFlags):
    """The flags of this command."""
    task_name: str = flag(SAMPLE_TASK, "task", tuple(sorted(TASKS)))
    data_dir: Optional[str] = flag(None, "folder of train, dev and test files; without it, for sentence_pair, the shipped pairs")
    output_dir: str = flag("output/finetune", "folder for checkpoints, event files and results")
    init_checkpoint: str = flag("output/pretrain", "checkpoint, or folder of one, to start from; none: random values")
    albert_config_file: Optional[str] = flag(None, "config by name or file; without it the one beside the checkpoint")
    vocab_file: Optional[str] = flag(None, "vocabulary; without it the one beside the checkpoint")
    do_lower_case: Optional[bool] = flag(None, "lower-case and strip accents; without it as the checkpoint was trained")
    max_seq_length: int = flag(128, "tokens of an example; longer ones are cut")
    do_predict: bool = flag(False, "predict the test file")
    train_batch_size: int = flag(32, "examples of a batch")
    eval_batch_size: int = flag(8, "examples of an evaluation step")
    predict_batch_size: int = flag(8, "examples of a prediction step")
    num_train_epochs: float = flag(3.0, "times the training examples are seen")
    warmup_proportion: float = flag(0.1, "share of the steps in which the learning rate rises")

    def __post_init__(self) -> None:
        super().__post_init__()
        self.require_at_least_1("max_seq_length", "train_batch_size", "eval_batch_size", "predict_batch_size")
        if not self.num_train_epochs > 0:
            raise ValueError("num_train_epochs must be above 0, got %s" % self.num_train_epochs)
        if self.data_dir is None:
            if self.task_name != SAMPLE_TASK:
                raise ValueError("data_dir must name the folder of %s; only %s has data that is shipped"
                                 % (self.task_name, SAMPLE_TASK))
            object.__setattr__(self, "data_dir", _SAMPLE)
        if not 0 <= self.warmup_proportion <= 1:
            raise ValueError("warmup_proportion must be in [0, 1], got %s" % self.warmup_proportion)
        if not (self.do_train or self.do_eval or self.do_predict):
            raise ValueError("do_train, do_eval and do_predict are all false: nothing to do")


class Plan(NamedTuple):
    """All that is known before anything is written."""
    task: Task
    examples: Dict[str, List[tasks.Example]]   # by part
    arrays: Dict[str, Dict[str, Any]]          # by part, see tasks.encode_examples
    folder: ModelFolder
    facts: Dict[str, str]                      # see started_from; empty without training
    device: npu.Device
    num_train_steps: int
    start_step: int                            # of the latest checkpoint in the output folder
    init_checkpoint: Optional[str]             # prefix; None for random values, or without training


def main(argv: Optional[Sequence[str]] = None) -> int:
    return run("estimator.finetune", __doc__, FinetuneConfig, finetune, argv)


def finetune(config: FinetuneConfig) -> None:
    """Checks, trains, evaluates, predicts. Raises UserError for what the user can mend, before a file is written."""
    import tensorflow.compat.v1 as tf          # takes two seconds: --help need not wait
    from estimator import trainer
    tf.logging.set_verbosity(tf.logging.ERROR)
    device = config.choose_device()
    config = config.with_loop(device)
    plan = make_plan(config, device)
    training = make_training(config, plan)
    if not plan.device.world.is_first:
        if config.do_train:
            trainer.train(training, plan.start_step)
        return
    with trainer.locked(config.output_dir):
        if config.do_train and not trainer.train(training, plan.start_step):
            return
        if config.do_eval and not trainer.evaluate(training):
            return
        if config.do_predict:
            predict(config, plan, training.estimator)
    print("Next: python -m serving.export --checkpoint_dir %s" % config.output_dir)


def make_plan(config: FinetuneConfig, device: npu.Device) -> Plan:
    """Reads and encodes the examples and checks checkpoint and output folder. Writes nothing."""
    files.require_folder(config.output_dir, "output_dir")
    task = TASKS[config.task_name]
    wanted = ((TRAIN, config.do_train), (DEV, config.do_eval), (TEST, config.do_predict))
    examples = {part: tasks.read_examples(task, config.data_dir, part) for part, is_wanted in wanted if is_wanted}
    init_checkpoint = find_init_checkpoint(config)
    folder = describe_model(config, task, init_checkpoint)
    print("Task %s on %s: %s" % (task.name, device, ", ".join(
        "{:,} {} examples".format(len(found), part) for part, found in examples.items())))
    facts = started_from(config, task, init_checkpoint, device) if config.do_train else {}
    resume.check_model(config.output_dir, folder)
    if config.do_train:
        for change in resume.check_training(config.output_dir, config, facts, config.allow_changes):
            print("Changed since the run before: " + change)
    start_step = resume.latest_step(config.output_dir)
    if not (config.do_train or start_step):
        raise UserError("--output_dir: %s holds no checkpoint: train first" % config.output_dir)
    if init_checkpoint and not start_step:
        from estimator.model_fn import check_init_checkpoint
        print(check_init_checkpoint(init_checkpoint, folder.config, len(task.labels)))
    tokenizer = load_tokenizer(folder.tokenizer)
    arrays = {part: tasks.encode_examples(found, tokenizer, config.max_seq_length, task.labels)
              for part, found in examples.items()}
    num_train_steps = count_steps(config, device, len(examples.get(TRAIN, ())))
    return Plan(task, examples, arrays, folder, facts, device, num_train_steps, start_step, init_checkpoint)


def find_init_checkpoint(config: FinetuneConfig) -> Optional[str]:
    """The prefix of --init_checkpoint; None for random values, or without training."""
    if not config.do_train or config.init_checkpoint == NO_CHECKPOINT:
        return None
    if not (os.path.exists(config.init_checkpoint) or os.path.exists(config.init_checkpoint + ".index")):
        raise UserError("--init_checkpoint: %s: no such file or folder: run python -m estimator.pretrain first, give a "
                        "checkpoint, or %s to start from random values" % (config.init_checkpoint, NO_CHECKPOINT))
    from estimator import checkpoints
    return checkpoints.resolve(config.init_checkpoint)


def describe_model(config: FinetuneConfig, task: Task, init_checkpoint: Optional[str]) -> ModelFolder:
    """What will stand beside the checkpoints, or does, without training.

    Config and vocabulary come from the flags, else from beside the checkpoint. From random values they are the shipped
    ones by default; beside a released checkpoint stands no description, and both must be given.
    """
    if not config.do_train:
        beside: Optional[ModelFolder] = model_folder.read(config.output_dir)
    else:
        beside = _read_beside(init_checkpoint) if init_checkpoint else None
    if init_checkpoint and not beside and not (config.albert_config_file and config.vocab_file):
        raise UserError("--init_checkpoint: beside %s there is no %s to say what it is: give --albert_config_file and "
                        "--vocab_file" % (init_checkpoint, model_folder.DESCRIPTION_FILE))
    if config.albert_config_file or not beside:
        model = albert_config.load(config.albert_config_file or "tiny")
    else:
        model = beside.config
    tokenizer = choose_tokenizer(config, beside)
    vocab_size = len(load_tokenizer(tokenizer).vocabulary)
    if vocab_size != model.vocab_size:
        raise UserError("vocab_size is %d in the config, but the vocabulary %s has %d entries"
                        % (model.vocab_size, tokenizer.spm_model_file or tokenizer.vocab_file, vocab_size))
    try:
        return ModelFolder(model, tokenizer, config.max_seq_length, task.name, task.labels,
                           beside.data_manifest_sha256 if beside else None)
    except ValueError as error:
        raise UserError("--%s" % error)


def choose_tokenizer(config: FinetuneConfig, beside: Optional[ModelFolder]) -> TokenizerConfig:
    """The tokenizer of the flags, else of the model; a vocabulary that is not the model's is refused."""
    tokenizer = beside.tokenizer if beside else TokenizerConfig(config.vocab_file or albert_config.vocab_path())
    if beside and config.vocab_file:
        ours = tokenizer.spm_model_file or tokenizer.vocab_file
        if files.sha256_of_file(config.vocab_file) != files.sha256_of_file(ours):
            raise UserError("--vocab_file: %s is not the vocabulary that the model was trained with, %s: leave the "
                            "flag out" % (config.vocab_file, ours))
    if config.do_lower_case is None:
        return tokenizer
    return dataclasses.replace(tokenizer, do_lower_case=config.do_lower_case)


def started_from(config: FinetuneConfig, task: Task, init_checkpoint: Optional[str], device: npu.Device) -> Dict[str, str]:
    """What must be the same for a training to go on, beside the model: its beginning and its examples."""
    path, _ = tasks.find_file(task, config.data_dir, TRAIN)
    return {"initial values": resume.checkpoint_fact(init_checkpoint), "training data": resume.file_fact(path),
            "number of devices": str(device.world.size)}


def count_steps(config: FinetuneConfig, device: npu.Device, num_examples: int) -> int:
    """Steps in all of the epochs: whole batches, and on the NPU whole loops."""
    if config.do_train:
        config.check_steps(device, "save_checkpoints_steps")
    steps = int(num_examples * config.num_train_epochs
                / (config.train_batch_size * device.world.size * config.gradient_accumulation_steps))
    updates = max(1, (config.iterations_per_loop or 1) // config.gradient_accumulation_steps)  # of a loop
    return max(1, steps // updates) * updates


def make_training(config: FinetuneConfig, plan: Plan) -> Any:
    """Puts together what `trainer` runs."""
    from estimator import input_fn
    from estimator.model_fn import classifier_model_fn
    from estimator.trainer import Training
    numbers = config.training(plan.device, config.train_batch_size, plan.num_train_steps,
                              int(plan.num_train_steps * config.warmup_proportion), start_step=plan.start_step,
                              init_checkpoint=None if plan.start_step else plan.init_checkpoint)
    estimator = plan.device.make_estimator(classifier_model_fn(plan.folder.config, numbers, len(plan.task.labels)),
                                           config.output_dir, config.run_options())

    def batches(done: int) -> Any:
        return input_fn.train_on_arrays(plan.arrays[TRAIN], config.train_batch_size, config.random_seed, done,
                                        plan.device.world)
    if config.do_train:
        batches(0)                             # refuses data that does not fill a batch before anything is written
    return Training("estimator.finetune", config, plan.facts, plan.folder, plan.device, estimator, batches,
                    "--train_batch_size %d" % config.train_batch_size, plan.num_train_steps,
                    lambda: evaluate(config, plan, estimator), eval_every=None, best_metric="eval_accuracy")


def evaluate(config: FinetuneConfig, plan: Plan, estimator: Any) -> Dict[str, Any]:
    """Evaluates the latest checkpoint on all dev examples."""
    from estimator import failures, input_fn, metrics
    with failures.explained("--eval_batch_size %d" % config.eval_batch_size):
        found = estimator.evaluate(input_fn.evaluate_on_arrays(plan.arrays[DEV], config.eval_batch_size))
    results = {name: value for name, value in found.items() if name != "loss"}   # a mean of batches, padding included
    results["majority_accuracy"] = metrics.majority_accuracy(plan.arrays[DEV]["label_ids"])
    metrics.write_results(config.output_dir, results)
    print("Step %d, %d dev examples: eval_accuracy %.4f (majority class %.4f)  eval_loss %.4f"
          % tuple(results[name] for name in ("global_step", "num_examples", "eval_accuracy", "majority_accuracy",
                                             "eval_loss")))
    print("Wrote %s" % os.path.join(config.output_dir, metrics.TEXT_FILE))
    return results


def predict(config: FinetuneConfig, plan: Plan, estimator: Any) -> None:
    """Writes the probabilities and the labels of all test examples, in the file's order."""
    import numpy as np
    from estimator import failures, input_fn, metrics
    arrays, examples = plan.arrays[TEST], plan.examples[TEST]
    with failures.explained("--predict_batch_size %d" % config.predict_batch_size):
        found = estimator.predict(input_fn.evaluate_on_arrays(arrays, config.predict_batch_size))
        probabilities = np.array([row["probabilities"] for row in found if row["is_real_example"]])
    predictions = probabilities.argmax(axis=1)
    write_predictions(config.output_dir, probabilities, [plan.task.labels[index] for index in predictions])
    if all(example.label is not None for example in examples):
        number = metrics.BY_NAME[plan.task.metric](arrays["label_ids"], predictions)
        print("Test: %s %.4f of %d examples" % (plan.task.metric, number, len(examples)))
    print("Wrote %s and %s" % tuple(os.path.join(config.output_dir, name)
                                    for name in (PROBABILITIES_FILE, PREDICTIONS_FILE)))


def write_predictions(folder: str, probabilities: Any, labels: Sequence[str]) -> None:
    """Writes a line of probabilities, by class index, for each example, and JSON lines as CLUE takes them."""
    files.write_text(os.path.join(folder, PROBABILITIES_FILE),
                     "".join("\t".join("%.6f" % value for value in row) + "\n" for row in probabilities))
    files.write_text(os.path.join(folder, PREDICTIONS_FILE),
                     "".join(json.dumps({"id": number, "label": label}, ensure_ascii=False) + "\n"
                             for number, label in enumerate(labels)))


def _read_beside(checkpoint: str) -> Optional[ModelFolder]:
    folder = os.path.dirname(checkpoint)
    has_description = os.path.exists(os.path.join(folder, model_folder.DESCRIPTION_FILE))
    return model_folder.read(folder) if has_description else None


if __name__ == "__main__":
    raise SystemExit(main())
