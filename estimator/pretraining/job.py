"""The pretraining job: records with masked words and sentence order → a `job` for `run`."""
import dataclasses
import functools
import glob
import os
from typing import Any, Mapping, Optional

import tensorflow.compat.v1 as tf

from albert_config import AlbertConfig
from estimator.data import input_fn, records
from estimator.data.input_fn import InputFn
from estimator.data.records import PretrainingData
from estimator.npu import devices
from estimator.pretraining import baselines
from estimator.pretraining.flags import PUBLISHED_STEPS, PretrainConfig
from estimator.training import failures, model_fn, result_files, resume, run, streaming_metrics
from estimator.training.curves import Chart, pace_charts
from estimator.training.jobs import Evaluation, Job, Schedule
from estimator.weights import checkpoint_files, descriptions, model_folder
from estimator.weights.model_folder import ModelFolder
from etl.common import files
from etl.common.command_line import UserError
from etl.text.tokenization import TokenizerConfig

# With fewer batches of data than this, a run of the published length makes no sense.
PUBLISHED_BATCH_SIZE, PUBLISHED_BATCHES = 4096, 100
SMALL_BATCH_SIZE, SMALL_EPOCHS = 32, 3
WARMUP_SHARE = 40                              # 1/40 of the steps: 3,125 of 125,000

CHARTS = (Chart("Masked-LM loss, nats", ("masked_lm_loss",), "nats", "unigram_cross_entropy"),
          Chart("Masked-LM accuracy", ("masked_lm_accuracy",), "share", "unigram_accuracy"),
          Chart("Sentence-order loss, nats (chance 0.69)", ("sentence_order_loss",), "nats"),
          Chart("Sentence-order accuracy (chance 0.5)", ("sentence_order_accuracy",), "share"),
          *pace_charts("records"))


def pretrain(config: PretrainConfig) -> None:
    """Checks, trains, evaluates. Raises UserError for a user error, before a file is written."""
    run.run(make_job(config))


def make_job(config: PretrainConfig) -> Job:
    """Checks that the model, the records and the output folder fit together. Writes nothing."""
    tf.logging.set_verbosity(tf.logging.ERROR)
    files.require_folder(config.output_dir, "output_dir")
    init_checkpoint = find_init_checkpoint(config)
    model = descriptions.load_config(config.albert_config_file, init_checkpoint or newest_of(config))
    device, config = config.on_device()
    data = find_data(config)
    config = with_sizes(config, data.num_train_records, device.world.size)
    if config.do_train:
        config.check_steps(device, "num_train_steps", "save_checkpoints_steps", "eval_every")
    folder = describe_model(config, model, data)
    _say_what_is_trained(config, device, data)
    if init_checkpoint:
        descriptions.require_vocabulary(data.tokenizer, "--init_checkpoint does not fit %s" % data.source,
                                        init_checkpoint)
    facts, start = run.find_start(
        config, device, folder, data.manifest_sha256 or resume.files_fact(data.train_files), init_checkpoint,
        functools.partial(model_fn.check_init_checkpoint, model=model,
                          has_sentence_order=data.has_sentence_order, optimizer=config.optimizer,
                          new_heads=config.new_heads))
    if config.do_eval and device.world.is_first:
        baselines.of_data(data)  # refuses records without a prediction before anything is written

    def batches(taken: int) -> InputFn:
        return input_fn.train_on_records(data, config.train_batch_size, config.random_seed, taken,
                                         device.world)
    return Job(
        command="estimator.pretrain", title="Pretraining", flags=config, device=device, folder=folder,
        facts=facts, start=start, init_checkpoint=init_checkpoint,
        schedule=Schedule(config.num_train_steps, config.num_warmup_steps, config.eval_every,
                          config.poly_power),
        model_fn=lambda numbers: model_fn.pretraining_model_fn(model, numbers, data.has_sentence_order,
                                                               config.new_heads),
        batches=batches, evaluate=functools.partial(evaluate, config, data), best_metric=config.best_metric,
        charts=CHARTS, next_command="estimator.finetune --init_checkpoint %s" % config.output_dir, data=data)


def _say_what_is_trained(config: PretrainConfig, device: devices.Device, data: PretrainingData) -> None:
    print("Model %s on %s" % (config.albert_config_file, device))
    print("{}: {:,} training records, {:,} held out, {} tokens each".format(
        data.source, data.num_train_records, data.num_eval_records, data.max_seq_length))
    if config.do_train:
        print("--train_batch_size %d --num_train_steps %d --num_warmup_steps %d --optimizer %s "
              "--learning_rate %g"
              % (config.train_batch_size, config.num_train_steps, config.num_warmup_steps, config.optimizer,
                 config.learning_rate))


def with_sizes(config: PretrainConfig, num_records: int, num_devices: int = 1) -> PretrainConfig:
    """Fills in the default batch size and steps: the published ones, or a few epochs of small data, in whole
    loops.

    Raises UserError if the given warm-up is longer than the run.
    """
    is_large = num_records >= PUBLISHED_BATCHES * PUBLISHED_BATCH_SIZE
    batch_size = config.train_batch_size or (PUBLISHED_BATCH_SIZE // num_devices if is_large
                                             else min(SMALL_BATCH_SIZE, max(1, num_records // num_devices)))
    few = max(1, SMALL_EPOCHS * num_records // (batch_size * num_devices)
              // config.updates_per_loop) * config.updates_per_loop
    steps = config.num_train_steps or (PUBLISHED_STEPS if is_large else few)
    warmup = steps // WARMUP_SHARE if config.num_warmup_steps is None else config.num_warmup_steps
    if warmup > steps:
        raise UserError("--num_warmup_steps is %d, longer than the run of %d steps that %d records give: "
                        "name --num_train_steps" % (warmup, steps, num_records))
    return dataclasses.replace(config, train_batch_size=batch_size, num_train_steps=steps,
                               num_warmup_steps=warmup)


def find_data(config: PretrainConfig) -> PretrainingData:
    """The records that --input_file names; with --do_train false, files given there are evaluated.

    Raises UserError as `records` does, and if there is nothing to evaluate on but evaluation is requested.
    """
    first = config.input_file[0]
    if len(config.input_file) == 1 and not os.path.exists(first) and not glob.has_magic(first):
        raise UserError("--input_file: %s: no such file or folder: run python -m etl.build_pretrain first"
                        % first)
    if len(config.input_file) == 1 and os.path.isdir(first):
        for name in ("eval_input_file", "vocab_file"):
            if getattr(config, name):
                raise UserError("--%s is for records without a manifest, but %s is a build and brings its own"
                                % (name, first))
        data = records.from_build(first, config.max_seq_length, config.max_predictions_per_seq)
    else:
        tokenizer = TokenizerConfig(config.vocab_file, config.do_lower_case) if config.vocab_file else None
        held_out = config.eval_input_file or (() if config.do_train else config.input_file)
        data = records.from_files(config.input_file, held_out, config.max_seq_length,
                                  config.max_predictions_per_seq, tokenizer)
    if config.do_eval and not data.has_sentence_order and config.best_metric.startswith("sentence_order"):
        raise UserError("--best_metric is %s, but %s was built without a sentence task"
                        % (config.best_metric, data.source))
    if config.do_eval and not data.num_eval_records:
        raise UserError("--do_eval: %s has no records to evaluate on: build with --eval_fraction above 0, "
                        "name files by --eval_input_file, or give --do_eval false" % data.source)
    return data


def describe_model(config: PretrainConfig, model: AlbertConfig, data: PretrainingData) -> ModelFolder:
    """The files beside the checkpoints. Raises UserError if the model and the records do not fit."""
    if data.vocab_size != model.vocab_size:
        raise UserError("vocab_size is %d in %s, but the vocabulary of the records, %s, has %d entries"
                        % (model.vocab_size, config.albert_config_file,
                           data.tokenizer.vocabulary_file, data.vocab_size))
    if model.type_vocab_size < 2:
        raise UserError("type_vocab_size must be at least 2 in %s, one for each segment, got %d"
                        % (config.albert_config_file, model.type_vocab_size))
    try:
        return ModelFolder(model, data.tokenizer, data.max_seq_length,
                           data_manifest_sha256=data.manifest_sha256)
    except ValueError as error:
        raise UserError("%s and %s: %s" % (config.albert_config_file, data.source, error))


def find_init_checkpoint(config: PretrainConfig) -> Optional[str]:
    """The prefix of --init_checkpoint, None for random values."""
    if not (config.do_train and config.init_checkpoint):
        return None
    return checkpoint_files.resolve(config.init_checkpoint)


def newest_of(config: PretrainConfig) -> Optional[str]:
    """The prefix of the newest checkpoint in --output_dir; None where there is none."""
    return (checkpoint_files.resolve(config.output_dir, "output_dir")
            if model_folder.has_checkpoint(config.output_dir) else None)


def evaluate(config: PretrainConfig, data: PretrainingData, estimator: Any, checkpoint: str) -> Evaluation:
    """Evaluates a checkpoint on the held-out records, with the baselines that do not read the text."""
    with failures.explained("--eval_batch_size %d" % config.eval_batch_size, data):
        found = estimator.evaluate(input_fn.evaluate_on_records(data, config.eval_batch_size),
                                   steps=config.max_eval_steps, checkpoint_path=checkpoint)
    results = {name: value for name, value in found.items()
               if name != "loss"}   # that one is a mean over batches
    results["perplexity"] = streaming_metrics.perplexity(results["masked_lm_loss"])
    result_files.write_curve_points(os.path.join(config.output_dir, "eval"), results["global_step"],
                                    {"perplexity": results["perplexity"]})
    results.update(baselines.of_data(data))
    print(results_line(results))
    return Evaluation(results)


def results_line(results: Mapping[str, Any]) -> str:
    """A result in a few lines, each metric with its baselines."""
    lines = ["Step %d, %d records held out:" % (results["global_step"], results["num_examples"]),
             "  masked_lm_loss %.4f (unigram %.4f, uniform %.4f)  masked_lm_accuracy %.4f (unigram %.4f)"
             % tuple(results[name] for name in ("masked_lm_loss", "unigram_cross_entropy",
                                                "uniform_cross_entropy",
                                                "masked_lm_accuracy", "unigram_accuracy"))]
    if "sentence_order_loss" in results:
        lines.append("  sentence_order_loss %.4f (chance 0.6931)  sentence_order_accuracy %.4f (chance 0.5)"
                     % (results["sentence_order_loss"], results["sentence_order_accuracy"]))
        if results.get("num_uncut_examples"):
            lines[-1] += ", %.4f of the %d records in which no sentence is cut" % (
                results["sentence_order_accuracy_uncut"], results["num_uncut_examples"])
    return "\n".join(lines)
