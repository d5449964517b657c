"""Trains a model on masked words and sentence order, and says how good it is on records held out.

Lengths and vocabulary come from the records' manifest. A run that was interrupted goes on when the same command runs
again, with the very batch that would have come next.

  python -m estimator.pretrain --train_batch_size 32 --num_train_steps 1000 --num_warmup_steps 100
  python -m estimator.pretrain --input_file 'records/*.tfrecord' --vocab_file vocab.txt --max_seq_length 512 \\
      --max_predictions_per_seq 51 --do_eval false
"""
import dataclasses
import glob
import math
import os
import time
from dataclasses import dataclass
from typing import Any, Dict, Mapping, NamedTuple, Optional, Sequence, Tuple

import albert_config
from albert_config import AlbertConfig
from estimator import model_folder, npu, records, resume
from estimator.model_folder import ModelFolder
from estimator.records import PretrainingData
from etl.command_line import UserError, flag, run
from etl.progress import clock
from etl.tokenization import TokenizerConfig

BASELINE_RECORDS = 100000                      # as many are read, at most, to count labels

# Published for ALBERT (Lan et al. 2019, section 4.1); with less data than so many batches, a run of this size makes no sense.
PUBLISHED_BATCH_SIZE, PUBLISHED_STEPS, PUBLISHED_BATCHES = 4096, 125000, 100
SMALL_BATCH_SIZE, SMALL_EPOCHS = 32, 3
WARMUP_SHARE = 40                              # one step in so many: 3,125 of 125,000
OPTIMIZERS = ("lamb", "adamw")


@dataclass(frozen=True)
class PretrainConfig:
    """The flags of this command. Rates and sizes are those published for ALBERT, unless the data is too small for them."""
    input_file: Tuple[str, ...] = flag(("output/pretrain_data",),
                                        "folder of etl.build_pretrain, or globs of TFRecord files")
    eval_input_file: Tuple[str, ...] = flag((), "globs of TFRecord files held out, where --input_file names files")
    output_dir: str = flag("output/pretrain", "folder for checkpoints, event files and results")
    albert_config_file: str = flag("tiny", "a shipped config by name, or a config file")
    init_checkpoint: Optional[str] = flag(None, "checkpoint, or folder of one, to start from")
    vocab_file: Optional[str] = flag(None, "vocabulary of the records, where --input_file names files")
    do_lower_case: bool = flag(True, "whether their text was lower-cased")
    max_seq_length: Optional[int] = flag(None, "tokens of a record; without it the manifest's")
    max_predictions_per_seq: Optional[int] = flag(None, "predictions of a record; without it the manifest's")
    do_train: bool = flag(True, "train")
    do_eval: bool = flag(True, "evaluate on the records held out")
    train_batch_size: Optional[int] = flag(None, "records of a training step; without it 4096, or 32 when there are fewer than "
                                           "409,600 records")
    eval_batch_size: int = flag(64, "records of an evaluation step")
    optimizer: str = flag("lamb", "update rule", OPTIMIZERS)
    learning_rate: float = flag(0.00176, "highest learning rate")
    num_train_steps: Optional[int] = flag(None, "training steps in all; without it 125,000, or 3 epochs when there are fewer "
                                          "than 409,600 records")
    num_warmup_steps: Optional[int] = flag(None, "steps in which the learning rate rises; without it one in 40: 3,125 of "
                                           "125,000")
    poly_power: float = flag(1.0, "power of the learning rate's decay")
    save_checkpoints_steps: int = flag(1000, "steps between checkpoints")
    keep_checkpoint_max: int = flag(5, "newest checkpoints that are kept")
    iterations_per_loop: int = flag(1, "steps the NPU runs between two calls of the host")
    max_eval_steps: Optional[int] = flag(None, "evaluation steps at most; without it all records held out")
    log_steps: int = flag(100, "steps between lines of progress")
    random_seed: int = flag(12345, "of initial values, order of records and dropout")
    backend: str = flag(npu.AUTO, "where to run; auto takes an NPU that is there", npu.BACKENDS)

    def __post_init__(self):
        for name in ("train_batch_size", "eval_batch_size", "num_train_steps", "save_checkpoints_steps", "log_steps",
                     "keep_checkpoint_max", "iterations_per_loop", "max_eval_steps", "max_seq_length",
                     "max_predictions_per_seq"):
            value = getattr(self, name)
            if value is not None and value < 1:
                raise ValueError("%s must be at least 1, got %d" % (name, value))
        if not self.learning_rate > 0:
            raise ValueError("learning_rate must be above 0, got %s" % self.learning_rate)
        warmup, steps = self.num_warmup_steps or 0, self.num_train_steps or PUBLISHED_STEPS
        if not 0 <= warmup <= steps:
            raise ValueError("num_warmup_steps must be in [0, %d], since num_train_steps is %d; got %d"
                             % (steps, steps, warmup))
        if not (self.do_train or self.do_eval):
            raise ValueError("do_train and do_eval are both false: nothing to do")

    @property
    def run_options(self) -> npu.RunOptions:
        return npu.RunOptions(self.save_checkpoints_steps, self.keep_checkpoint_max, self.log_steps, self.random_seed,
                              self.iterations_per_loop)


class Plan(NamedTuple):
    """All that is known before anything is written."""
    config: PretrainConfig                     # without gaps
    model: AlbertConfig
    data: PretrainingData
    folder: ModelFolder
    backend: str
    start_step: int                            # of the latest checkpoint in the output folder
    init_checkpoint: Optional[str]             # prefix; None for random values


def main(argv: Optional[Sequence[str]] = None) -> int:
    return run("estimator.pretrain", __doc__, PretrainConfig, pretrain, argv)


def pretrain(config: PretrainConfig) -> None:
    """Checks, trains, evaluates. Raises UserError for anything the user can mend, before a file is written."""
    import tensorflow.compat.v1 as tf          # takes two seconds: --help need not wait
    tf.logging.set_verbosity(tf.logging.ERROR)
    plan = make_plan(config)
    config = plan.config
    estimator = npu.make_estimator(plan.backend, _model_fn(config, plan), config.output_dir, config.run_options)
    if config.do_train:
        train(config, plan, estimator)
    if config.do_eval:
        evaluate(config, plan, estimator)
    print("Next: python -m estimator.finetune --init_checkpoint %s" % config.output_dir)


def make_plan(config: PretrainConfig) -> Plan:
    """Looks at the model, the records and the output folder, and holds them against each other. Writes nothing."""
    model = albert_config.load(config.albert_config_file)
    backend, reason = npu.choose_backend(config.backend)
    data = find_data(config)
    config = with_sizes(config, data.num_train_records)
    npu.check_steps(backend, config.run_options, {"num_train_steps": config.num_train_steps,
                                                  "save_checkpoints_steps": config.save_checkpoints_steps})
    folder = describe_model(config, model, data)
    print("Model %s on %s (%s)" % (config.albert_config_file, backend, reason))
    print("{}: {:,} records to train on, {:,} held out, {} tokens each".format(
        data.source, data.num_train_records, data.num_eval_records, data.max_seq_length))
    if config.do_train:
        print("--train_batch_size %d --num_train_steps %d --num_warmup_steps %d --optimizer %s --learning_rate %g"
              % (config.train_batch_size, config.num_train_steps, config.num_warmup_steps, config.optimizer,
                 config.learning_rate))
    init_checkpoint = find_init_checkpoint(config)
    resume.check_model(config.output_dir, folder)
    if config.do_train:
        for remark in resume.check_training(config.output_dir, config, started_from(init_checkpoint)):
            print("Changed since the run before: " + remark)
    start_step = resume.latest_step(config.output_dir)
    if not (config.do_train or start_step):
        raise UserError("--output_dir: %s holds no checkpoint to evaluate: train first" % config.output_dir)
    if init_checkpoint and not start_step:
        from estimator.model_fn import check_init_checkpoint
        print(check_init_checkpoint(init_checkpoint, model, has_sentence_order=data.has_sentence_order))
    return Plan(config, model, data, folder, backend, start_step, init_checkpoint)


def with_sizes(config: PretrainConfig, num_records: int) -> PretrainConfig:
    """Fills in the batch size and the steps that were not given: the published ones, or a few epochs of small data.

    Raises UserError when the warm-up that was given is longer than the run.
    """
    is_large = num_records >= PUBLISHED_BATCHES * PUBLISHED_BATCH_SIZE
    batch_size = config.train_batch_size or (PUBLISHED_BATCH_SIZE if is_large else min(SMALL_BATCH_SIZE, num_records))
    steps = config.num_train_steps or (PUBLISHED_STEPS if is_large else max(1, SMALL_EPOCHS * num_records // batch_size))
    warmup = steps // WARMUP_SHARE if config.num_warmup_steps is None else config.num_warmup_steps
    if warmup > steps:
        raise UserError("--num_warmup_steps is %d, longer than the run of %d steps that %d records give: name "
                        "--num_train_steps" % (warmup, steps, num_records))
    return dataclasses.replace(config, train_batch_size=batch_size, num_train_steps=steps, num_warmup_steps=warmup)


def find_data(config: PretrainConfig) -> PretrainingData:
    """The records that --input_file names; with --do_train false, files given there are what is evaluated.

    Raises UserError where `records` does, and when there is nothing to evaluate on but evaluation is asked for.
    """
    first = config.input_file[0]
    if len(config.input_file) == 1 and not os.path.exists(first) and not glob.has_magic(first):
        raise UserError("--input_file: %s: no such file or folder: run python -m etl.build_pretrain first" % first)
    if len(config.input_file) == 1 and os.path.isdir(first):
        for name in ("eval_input_file", "vocab_file"):
            if getattr(config, name):
                raise UserError("--%s is for records without a manifest, but %s is a build and brings its own"
                                % (name, first))
        data = records.from_build(first, config.max_seq_length, config.max_predictions_per_seq)
    else:
        tokenizer = TokenizerConfig(config.vocab_file, config.do_lower_case) if config.vocab_file else None
        held_out = config.eval_input_file or (() if config.do_train else config.input_file)
        data = records.from_files(config.input_file, held_out, config.max_seq_length, config.max_predictions_per_seq,
                                  tokenizer)
    if config.do_eval and not data.num_eval_records:
        raise UserError("--do_eval: %s holds no records to evaluate on: build with --eval_fraction above 0, name files "
                        "by --eval_input_file, or give --do_eval false" % data.source)
    return data


def describe_model(config: PretrainConfig, model: AlbertConfig, data: PretrainingData) -> ModelFolder:
    """What will stand beside the checkpoints. Raises UserError when the model and the records do not fit."""
    if data.vocab_size != model.vocab_size:
        raise UserError("vocab_size is %d in %s, but the vocabulary of the records, %s, has %d entries"
                        % (model.vocab_size, config.albert_config_file,
                           data.tokenizer.spm_model_file or data.tokenizer.vocab_file, data.vocab_size))
    try:
        return ModelFolder(model, data.tokenizer, data.max_seq_length, data_manifest_sha256=data.manifest_sha256)
    except ValueError as error:
        raise UserError(str(error))


def find_init_checkpoint(config: PretrainConfig) -> Optional[str]:
    """The prefix of --init_checkpoint, None for random values."""
    if not (config.do_train and config.init_checkpoint):
        return None
    from estimator import checkpoints          # TensorFlow takes two seconds to import: --help need not wait
    return checkpoints.resolve(config.init_checkpoint)


def started_from(init_checkpoint: Optional[str]) -> Dict[str, str]:
    """What must be the same for a training to go on, beside the model."""
    return {"init_checkpoint": resume.checkpoint_fact(init_checkpoint)}


def train(config: PretrainConfig, plan: Plan, estimator: Any) -> None:
    """Writes the model folder, then trains to --num_train_steps, from the latest checkpoint if there is one."""
    from estimator import failures, input_fn
    if plan.start_step >= config.num_train_steps:
        print("Nothing to train: %s is at step %d of %d" % (config.output_dir, plan.start_step, config.num_train_steps))
        return
    batches = input_fn.train_on_records(plan.data, config.train_batch_size, config.random_seed, plan.start_step)
    model_folder.write(config.output_dir, plan.folder)
    resume.write_run(config.output_dir, "estimator.pretrain", config, plan.backend, started_from(plan.init_checkpoint))
    if plan.start_step:
        print("Going on from step %d of %d" % (plan.start_step, config.num_train_steps))
    begin = time.time()
    with failures.explained("--train_batch_size %d" % config.train_batch_size, plan.data):
        estimator.train(batches, max_steps=config.num_train_steps)
    print("Trained %d steps in %s; checkpoints in %s"
          % (config.num_train_steps - plan.start_step, clock(time.time() - begin), config.output_dir))


def evaluate(config: PretrainConfig, plan: Plan, estimator: Any) -> None:
    """Evaluates the latest checkpoint on the records held out, beside what one guesses without reading the text."""
    from estimator import failures, input_fn, metrics
    with failures.explained("--eval_batch_size %d" % config.eval_batch_size, plan.data):
        found = estimator.evaluate(input_fn.evaluate_on_records(plan.data, config.eval_batch_size),
                                   steps=config.max_eval_steps)
        results = {name: value for name, value in found.items() if name != "loss"}   # that one is a mean over batches
        results.update(baselines(plan.data))
    metrics.write_results(config.output_dir, results)
    print(results_line(results))
    print("Wrote %s" % os.path.join(config.output_dir, metrics.TEXT_FILE))


def baselines(data: PretrainingData) -> Dict[str, float]:
    """Masked-LM numbers of models that do not read: all tokens alike, and each as often as in the training labels."""
    from estimator import input_fn, metrics
    train_counts = input_fn.label_counts(data.train_files, data, BASELINE_RECORDS)
    eval_counts = input_fn.label_counts(data.eval_files, data, BASELINE_RECORDS)
    cross_entropy, accuracy = metrics.unigram_baseline(train_counts, eval_counts)
    return {"unigram_cross_entropy": cross_entropy, "unigram_accuracy": accuracy,
            "uniform_cross_entropy": math.log(data.vocab_size)}


def results_line(results: Mapping[str, Any]) -> str:
    """All of a result that fits into a few lines, each number beside what it must beat."""
    lines = ["Step %d, %d records held out:" % (results["global_step"], results["num_examples"]),
             "  masked_lm_loss %.4f (unigram %.4f, uniform %.4f)  masked_lm_accuracy %.4f (unigram %.4f)"
             % tuple(results[name] for name in ("masked_lm_loss", "unigram_cross_entropy", "uniform_cross_entropy",
                                                "masked_lm_accuracy", "unigram_accuracy"))]
    if "sentence_order_loss" in results:
        lines.append("  sentence_order_loss %.4f (chance 0.6931)  sentence_order_accuracy %.4f (chance 0.5)"
                     % (results["sentence_order_loss"], results["sentence_order_accuracy"]))
    return "\n".join(lines)


def _model_fn(config: PretrainConfig, plan: Plan) -> Any:
    from estimator.model_fn import TrainingConfig, pretraining_model_fn
    training = TrainingConfig(
        optimizer=config.optimizer, learning_rate=config.learning_rate, num_train_steps=config.num_train_steps,
        num_warmup_steps=config.num_warmup_steps, random_seed=config.random_seed, poly_power=config.poly_power,
        init_checkpoint=None if plan.start_step else plan.init_checkpoint, log_steps=config.log_steps,
        iterations_per_loop=config.iterations_per_loop)
    return pretraining_model_fn(plan.model, training, plan.data.has_sentence_order)


if __name__ == "__main__":
    raise SystemExit(main())
