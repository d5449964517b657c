"""Trains a model on masked words and sentence order, and says how good it is on records held out.

Lengths and vocabulary come from the records' manifest. A run that was interrupted goes on when the same command runs
again, with the very batch that would have come next.

  python -m estimator.pretrain --train_batch_size 32 --num_train_steps 1000 --num_warmup_steps 100
  python -m estimator.pretrain --input_file 'records/*.tfrecord' --vocab_file vocab.txt --max_seq_length 512 \\
      --max_predictions_per_seq 51 --do_eval false
"""
import dataclasses
import functools
import glob
import math
import os
from dataclasses import dataclass
from typing import Any, Dict, Mapping, NamedTuple, Optional, Sequence, Tuple

import albert_config
from albert_config import AlbertConfig
from estimator import model_folder, npu, records, resume
from estimator.model_folder import ModelFolder
from estimator.records import PretrainingData
from estimator.training_flags import OPTIMIZERS, TrainingFlags
from etl import files
from etl.command_line import UserError, flag, run
from etl.tokenization import TokenizerConfig

BASELINE_RECORDS = 20000                       # as many are read, at most, to count labels

# Published for ALBERT (Lan et al. 2019, section 4.1); with less data than so many batches, a run of this size makes no sense.
PUBLISHED_BATCH_SIZE, PUBLISHED_STEPS, PUBLISHED_BATCHES = 4096, 125000, 100
SMALL_BATCH_SIZE, SMALL_EPOCHS = 32, 3
WARMUP_SHARE = 40                              # one step in so many: 3,125 of 125,000
BEST_METRICS = ("masked_lm_loss", "masked_lm_accuracy", "perplexity", "sentence_order_accuracy", "sentence_order_loss")


@dataclass(frozen=True)
class PretrainConfig(TrainingFlags):
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
    train_batch_size: Optional[int] = flag(None, "records of a batch; without it 4096, or 32 when there are fewer than 409,600 "
                                           "records")
    eval_batch_size: int = flag(64, "records of an evaluation step")
    optimizer: str = flag("lamb", "update rule", OPTIMIZERS)
    learning_rate: float = flag(0.00176, "highest learning rate")
    num_train_steps: Optional[int] = flag(None, "training steps in all; without it 125,000, or 3 epochs when there are fewer "
                                          "than 409,600 records")
    num_warmup_steps: Optional[int] = flag(None, "steps in which the learning rate rises; without it one in 40: 3,125 of "
                                           "125,000")
    poly_power: float = flag(1.0, "power of the learning rate's decay")
    eval_every: Optional[int] = flag(None, "steps between evaluations while training; without it one at the end")
    best_metric: str = flag("masked_lm_loss", "which number of the evaluations decides what is kept in best/", BEST_METRICS)
    max_eval_steps: Optional[int] = flag(None, "evaluation steps at most; without it all records held out")

    def __post_init__(self) -> None:
        super().__post_init__()
        self.require_at_least_1("train_batch_size", "eval_batch_size", "num_train_steps", "eval_every", "max_eval_steps",
                                "max_seq_length", "max_predictions_per_seq")
        warmup, steps = self.num_warmup_steps or 0, self.num_train_steps or PUBLISHED_STEPS
        if not 0 <= warmup <= steps:
            raise ValueError("num_warmup_steps must be in [0, %d], since num_train_steps is %d; got %d"
                             % (steps, steps, warmup))
        if not (self.do_train or self.do_eval):
            raise ValueError("do_train and do_eval are both false: nothing to do")
        if not self.poly_power > 0:
            raise ValueError("poly_power must be above 0, got %s" % self.poly_power)
        if self.eval_every and not self.do_eval:
            raise ValueError("eval_every is %d, but do_eval is false" % self.eval_every)


class Plan(NamedTuple):
    """All that is known before anything is written."""
    config: PretrainConfig                     # without gaps
    model: AlbertConfig
    data: PretrainingData
    folder: ModelFolder
    facts: Dict[str, str]                      # see facts_of
    device: npu.Device
    start_step: int                            # of the latest checkpoint in the output folder
    init_checkpoint: Optional[str]             # prefix; None for random values


def main(argv: Optional[Sequence[str]] = None) -> int:
    return run("estimator.pretrain", __doc__, PretrainConfig, pretrain, argv)


def pretrain(config: PretrainConfig) -> None:
    """Checks, trains, evaluates. Raises UserError for anything the user can mend, before a file is written."""
    import tensorflow.compat.v1 as tf          # takes two seconds: --help need not wait
    from estimator import trainer, training_report
    tf.logging.set_verbosity(tf.logging.ERROR)
    plan = make_plan(config)
    training = make_training(plan)
    if not plan.device.world.is_first:
        if config.do_train:
            trainer.train(training, plan.start_step)
        return
    with trainer.locked(config.output_dir):
        if config.do_train and not trainer.train(training, plan.start_step):
            return
        if config.do_eval and not trainer.evaluate(training):
            return
        report = training_report.write_report(config.output_dir, "Pretraining", charts())
    print("Wrote %s" % report)
    print("Next: python -m estimator.finetune --init_checkpoint %s" % config.output_dir)


def make_plan(config: PretrainConfig) -> Plan:
    """Looks at the model, the records and the output folder, and holds them against each other. Writes nothing."""
    files.require_folder(config.output_dir, "output_dir")
    model = albert_config.load(config.albert_config_file)
    device = config.choose_device()
    data = find_data(config)
    config = with_sizes(config.with_loop(device), data.num_train_records, device.world.size)
    if config.do_train:
        config.check_steps(device, "num_train_steps", "save_checkpoints_steps", "eval_every")
    folder = describe_model(config, model, data)
    print("Model %s on %s" % (config.albert_config_file, device))
    print("{}: {:,} records to train on, {:,} held out, {} tokens each".format(
        data.source, data.num_train_records, data.num_eval_records, data.max_seq_length))
    if config.do_train:
        print("--train_batch_size %d --num_train_steps %d --num_warmup_steps %d --optimizer %s --learning_rate %g"
              % (config.train_batch_size, config.num_train_steps, config.num_warmup_steps, config.optimizer,
                 config.learning_rate))
    init_checkpoint = find_init_checkpoint(config)
    facts = facts_of(data, init_checkpoint, device)
    resume.check_model(config.output_dir, folder)
    if config.do_train:
        for change in resume.check_training(config.output_dir, config, facts, config.allow_changes):
            print("Changed since the run before: " + change)
    start_step = resume.latest_step(config.output_dir)
    if not (config.do_train or model_folder.has_checkpoint(config.output_dir)):
        raise UserError("--output_dir: %s holds no checkpoint to evaluate: train first" % config.output_dir)
    if init_checkpoint and not start_step:
        from estimator.model_fn import check_init_checkpoint
        print(check_init_checkpoint(init_checkpoint, model, has_sentence_order=data.has_sentence_order,
                                    optimizer=config.optimizer))
    return Plan(config, model, data, folder, facts, device, start_step, init_checkpoint)


def with_sizes(config: PretrainConfig, num_records: int, num_devices: int = 1) -> PretrainConfig:
    """Fills in the batch size and the steps that were not given: the published ones, or a few epochs of small data, in whole
    loops.

    Raises UserError when the warm-up that was given is longer than the run.
    """
    is_large = num_records >= PUBLISHED_BATCHES * PUBLISHED_BATCH_SIZE
    batch_size = config.train_batch_size or (PUBLISHED_BATCH_SIZE // num_devices if is_large
                                             else min(SMALL_BATCH_SIZE, max(1, num_records // num_devices)))
    few = max(1, SMALL_EPOCHS * num_records // (batch_size * num_devices) // config.updates_per_loop) * config.updates_per_loop
    steps = config.num_train_steps or (PUBLISHED_STEPS if is_large else few)
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
    if config.do_eval and not data.has_sentence_order and config.best_metric.startswith("sentence_order"):
        raise UserError("--best_metric is %s, but %s was built without a sentence task" % (config.best_metric, data.source))
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
    if model.type_vocab_size < 2:
        raise UserError("type_vocab_size must be at least 2 in %s, one for each segment, got %d"
                        % (config.albert_config_file, model.type_vocab_size))
    try:
        return ModelFolder(model, data.tokenizer, data.max_seq_length, data_manifest_sha256=data.manifest_sha256)
    except ValueError as error:
        raise UserError("%s and %s: %s" % (config.albert_config_file, data.source, error))


def find_init_checkpoint(config: PretrainConfig) -> Optional[str]:
    """The prefix of --init_checkpoint, None for random values."""
    if not (config.do_train and config.init_checkpoint):
        return None
    from estimator import checkpoint_files # TensorFlow takes two seconds to import: --help need not wait
    return checkpoint_files.resolve(config.init_checkpoint)


def facts_of(data: PretrainingData, init_checkpoint: Optional[str], device: npu.Device) -> Dict[str, str]:
    """What must be the same for a training to go on, beside the model and the flags."""
    content = data.manifest_sha256 or resume.files_fact(data.train_files)
    return {"training data": "of SHA-256 %s" % content, "initial values": resume.checkpoint_fact(init_checkpoint),
            "number of devices": str(device.world.size)}


def make_training(plan: Plan) -> Any:
    """Puts together what `trainer` runs."""
    from estimator import input_fn
    from estimator.model_fn import pretraining_model_fn
    from estimator.trainer import Training
    config = plan.config
    numbers = config.training(plan.device, config.train_batch_size, config.num_train_steps, config.num_warmup_steps,
                              poly_power=config.poly_power, start_step=plan.start_step,
                              init_checkpoint=None if plan.start_step else plan.init_checkpoint)
    estimator = plan.device.make_estimator(pretraining_model_fn(plan.model, numbers, plan.data.has_sentence_order),
                                           config.output_dir, config.run_options())

    def batches(done: int) -> Any:
        return input_fn.train_on_records(plan.data, config.train_batch_size, config.random_seed, done, plan.device.world)
    if config.do_train:
        batches(0)                             # refuses data that does not fill a batch before anything is written
    if config.do_eval and plan.device.world.is_first:
        baselines(plan.data)                   # and records without a prediction
    return Training("estimator.pretrain", config, plan.facts, plan.folder, plan.device, estimator, batches,
                    "--train_batch_size %d" % config.train_batch_size, config.num_train_steps,
                    lambda: evaluate(plan, estimator), config.eval_every, config.best_metric, data=plan.data)


def evaluate(plan: Plan, estimator: Any) -> Dict[str, Any]:
    """Evaluates the latest checkpoint on the records held out, beside what one guesses without reading the text."""
    from estimator import checkpoint_files, failures, input_fn, metrics
    config = plan.config
    newest = checkpoint_files.resolve(config.output_dir, "output_dir")          # left to itself, TensorFlow takes what the list says
    with failures.explained("--eval_batch_size %d" % config.eval_batch_size, plan.data):
        found = estimator.evaluate(input_fn.evaluate_on_records(plan.data, config.eval_batch_size),
                                   steps=config.max_eval_steps, checkpoint_path=newest)
        results = {name: value for name, value in found.items() if name != "loss"}   # that one is a mean over batches
        results.update(baselines(plan.data))
    metrics.write_results(config.output_dir, results)
    print(results_line(results))
    print("Wrote %s" % os.path.join(config.output_dir, metrics.TEXT_FILE))
    return results


@functools.lru_cache(maxsize=1)                # evaluations repeat, the records stay
def baselines(data: PretrainingData) -> Dict[str, float]:
    """Masked-LM numbers of models that do not read: all tokens alike, and each as often as in the training labels."""
    from estimator import metrics
    counts = [records.label_counts(paths, data, BASELINE_RECORDS) for paths in (data.train_files, data.eval_files)]
    for paths, found in zip((data.train_files, data.eval_files), counts):
        if not found.any():
            raise UserError("%s: masked_lm_weights are 0 everywhere: there is nothing to predict" % ", ".join(paths))
    cross_entropy, accuracy = metrics.unigram_baseline(*counts)
    return {"unigram_cross_entropy": cross_entropy, "unigram_accuracy": accuracy,
            "uniform_cross_entropy": math.log(data.vocab_size)}


def charts() -> Any:
    """What the report shows."""
    from estimator.training_report import Chart
    return (Chart("Masked-LM loss, nats", ("masked_lm_loss",), "nats", "unigram_cross_entropy"),
            Chart("Masked-LM accuracy", ("masked_lm_accuracy",), "share", "unigram_accuracy"),
            Chart("Sentence-order loss, nats (chance 0.69)", ("sentence_order_loss",), "nats"),
            Chart("Sentence-order accuracy (chance 0.5)", ("sentence_order_accuracy",), "share"),
            Chart("Learning rate", ("learning_rate",), "rate"),
            Chart("Global norm of the gradient before clipping", ("gradient_norm",), "norm", log_y=True),
            Chart("Records a second", ("examples_per_second",), "records/s"))


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


if __name__ == "__main__":
    raise SystemExit(main())
