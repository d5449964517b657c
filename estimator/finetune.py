"""Trains a classifier or a regression on labelled sentences or pairs, evaluates it and predicts with it.

Starts from a pretrained checkpoint, whose folder says config and vocabulary. Without flags it learns the shipped
sentence pairs from what python -m estimator.pretrain wrote. --list_tasks says which tasks and files it knows.

  python -m estimator.finetune --do_train=true --do_eval=true
  python -m estimator.finetune --preset afqmc --data_dir afqmc --init_checkpoint albert_tiny_zh \\
      --albert_config_file tiny --vocab_file vocab.txt --do_train --do_eval --do_predict
  python -m estimator.finetune --task_name single_sentence --data_dir reviews --columns text_a=review label=stars \\
      --labels 1 2 3 4 5 --seeds 1,2,3

After each epoch the dev examples are evaluated; the best checkpoint is kept in best/, and is the one that is evaluated
last, that predicts and that python -m serving.export takes. A run that was cut off goes on when the command is repeated.
"""
import dataclasses
import functools
import os
from typing import Any, Dict, List, NamedTuple, Optional, Sequence, Tuple

import albert_config
from estimator import encoded, epochs, evaluation, model_folder, npu, resume, scores, tasks
from estimator.evaluation import Part
from estimator.finetune_flags import BALANCED, CACHE_FOLDER, FinetuneConfig
from estimator.model_folder import ModelFolder
from estimator.presets import PRESETS
from estimator.tasks import DEV, TASKS, TEST, TRAIN, Task
from etl import files
from etl.command_line import UserError, run
from etl.tokenization import TokenizerConfig

NO_CHECKPOINT = "none"
SEEDS_FILE = "seeds_results.txt"


class Plan(NamedTuple):
    """All that is known before anything is written."""
    config: FinetuneConfig                     # without gaps
    task: Task
    parts: Dict[str, Part]                     # by name
    folder: ModelFolder
    facts: Dict[str, str]                      # see started_from; empty without training
    device: npu.Device
    num_train_steps: int
    eval_every: Optional[int]                  # steps between evaluations
    start_step: int                            # of the latest checkpoint in the output folder
    init_checkpoint: Optional[str]             # prefix; None for random values, or without training

    @property
    def seq_length(self) -> Optional[int]:
        """What all batches are padded to; None: each to its longest."""
        pads = self.config.pad_to_max_length
        return self.folder.max_seq_length if pads or (pads is None and not self.device.on_host) else None

    @property
    def best_metric(self) -> str:
        return "eval_" + (self.config.best_metric or self.task.metric)


def main(argv: Optional[Sequence[str]] = None) -> int:
    return run("estimator.finetune", __doc__, FinetuneConfig, finetune, argv)


def finetune(config: FinetuneConfig) -> None:
    """Lists the tasks, or trains: once, or once for each seed."""
    if config.list_tasks:
        print(tasks.describe_all())
    elif config.seeds:
        finetune_seeds(config)
    else:
        finetune_once(config)


def finetune_seeds(config: FinetuneConfig) -> None:
    """One run for each seed, then mean and standard deviation of each number."""
    cache_dir = cache_dir_of(config)
    found: Dict[int, Dict[str, Any]] = {}
    for seed in config.seed_list():
        print("Seed %d" % seed)
        folder = os.path.join(config.output_dir, "seed-%d" % seed)
        results = finetune_once(dataclasses.replace(config, seeds=None, random_seed=seed, cache_dir=cache_dir,
                                                    output_dir=folder))
        if results is None:                    # another rank's, or stopped by a signal
            return
        found[seed] = results
    names = [name for name in next(iter(found.values())) if all(name in results for results in found.values())]
    text = "".join("%s = %s\n" % (name, scores.mean_and_deviation([results[name] for results in found.values()]))
                   for name in sorted(names))
    path = os.path.join(config.output_dir, SEEDS_FILE)
    files.write_text(path, text)
    print("Means and standard deviations over seeds %s:\n%sWrote %s" % (config.seeds, text, path))


def finetune_once(config: FinetuneConfig) -> Optional[Dict[str, Any]]:
    """Checks, trains, evaluates, predicts. Raises UserError for what the user can mend, before a file is written.

    Returns:
      The results of the best checkpoint; None without evaluation, on other ranks than the first, or after SIGTERM.
    """
    import tensorflow.compat.v1 as tf          # takes two seconds: --help need not wait
    from estimator import best_checkpoint, trainer
    tf.logging.set_verbosity(tf.logging.ERROR)
    plan = make_plan(config)
    config, training = plan.config, make_training(plan)
    if not plan.device.world.is_first:
        if config.do_train:
            trainer.train(training, plan.start_step)
        return None
    results = None
    with trainer.locked(config.output_dir):
        save_encoded(plan)
        if config.do_train and not trainer.train(training, plan.start_step):
            return None
        find_best = functools.partial(best_checkpoint.find, config.output_dir, check_data=False)     # make_plan has checked it
        if config.do_eval:
            if (config.do_train or not find_best()) and not trainer.evaluate(training):
                return None
            results = report(plan, training.estimator, find_best())
        if config.do_predict:
            predict(plan, training.estimator, best_checkpoint.choose(config.output_dir, "output_dir"))
    if not plan.task.is_regression:            # which cannot be exported
        print("Next: python -m serving.export --checkpoint_dir %s" % config.output_dir)
    return results


def make_plan(config: FinetuneConfig) -> Plan:
    """Reads and encodes the examples and checks checkpoint and output folder. Writes nothing."""
    from estimator import best_checkpoint      # needs TensorFlow
    files.require_folder(config.output_dir, "output_dir")
    device = config.choose_device()
    finds_loop = config.iterations_per_loop is None
    config = with_loop_and_model(config, device)
    task = tasks.with_columns(TASKS[config.task_name], config.columns_by_role(), config.labels) \
        if config.task_name in tasks.GENERIC else TASKS[config.task_name]
    if config.preset:
        print("Preset %s. Reported by the makers of the weights: %s" % (config.preset, PRESETS[config.preset].published))
    wanted = [part for part in task.parts if (part == TRAIN and config.do_train) or (part.startswith(DEV) and config.do_eval)
              or (part.startswith(TEST) and config.do_predict)]
    examples = {part: tasks.read_examples(task, config.data_dir, part) for part in wanted}
    check_flags(config, task, device, examples)
    init_checkpoint = find_init_checkpoint(config)
    folder = describe_model(config, task, init_checkpoint)
    print("Task %s on %s: %s" % (task.name, device, ", ".join(
        "{:,} {} examples".format(len(found), part) for part, found in examples.items())))
    facts = started_from(config, folder, examples[TRAIN], init_checkpoint, device) if config.do_train else {}
    resume.check_model(config.output_dir, folder)
    if config.do_train:
        for change in resume.check_training(config.output_dir, config, facts, config.allow_changes):
            print("Changed since the run before: " + change)
    start_step = resume.latest_step(config.output_dir)
    best_checkpoint.find(config.output_dir)    # refuses a damaged one before anything is written
    if not (config.do_train or model_folder.has_checkpoint(config.output_dir)):
        raise UserError("--output_dir: %s holds no checkpoint: train first" % config.output_dir)
    if init_checkpoint and not start_step:
        from estimator.model_fn import check_init_checkpoint
        print(check_init_checkpoint(init_checkpoint, folder.config, len(task.labels)))
    encoding = encoding_of(config, folder)
    cache_dir = cache_dir_of(config)
    parts = {part: Part(part, found, encoded.encode(found, encoding, cache_dir)) for part, found in examples.items()}
    num_rows = len(parts[TRAIN].rows.lengths) if config.do_train else 0
    if config.do_train and finds_loop:
        config = dataclasses.replace(config, iterations_per_loop=epochs.fitting_loop(config, device, num_rows))
    return Plan(config, task, parts, folder, facts, device, epochs.count_steps(config, device, num_rows, config.num_train_epochs),
                epochs.steps_between_evaluations(config, device, num_rows), start_step, init_checkpoint)


def with_loop_and_model(config: FinetuneConfig, device: npu.Device) -> FinetuneConfig:
    """The same with the device's loop and, without training, with what the folder of the model says for lack of flags."""
    config = config.with_loop(device)
    if config.do_train:
        return config
    model = model_folder.read(config.output_dir)
    if model.task not in TASKS:
        raise UserError("--output_dir: %s holds a model of the task %s: only tasks of --list_tasks can be evaluated"
                        % (config.output_dir, model.task))
    task_name = config.task_name or model.task
    labels = config.labels or (model.labels if task_name in tasks.GENERIC else ())
    return dataclasses.replace(config, task_name=task_name, labels=labels,
                               max_seq_length=config.max_seq_length or model.max_seq_length,
                               doc_stride=config.doc_stride or resume.flag_of_run(config.output_dir, "doc_stride"))


def check_flags(config: FinetuneConfig, task: Task, device: npu.Device, examples: Dict[str, Any]) -> None:
    """Raises UserError for flags that do not fit the task or the device."""
    pairs = any(example.text_b is not None for found in examples.values() for example in found[:1])
    if config.doc_stride and pairs:
        raise UserError("--doc_stride is for tasks with one text; %s has pairs" % task.name)
    if config.doc_stride and config.doc_stride > config.max_seq_length - 2:
        raise UserError("--doc_stride must be at most --max_seq_length - 2, which is %d, or words are skipped; got %d"
                        % (config.max_seq_length - 2, config.doc_stride))
    if config.class_weights and task.is_regression:
        raise UserError("--class_weights: %s has no classes" % task.name)
    if config.class_weights not in ((), (BALANCED,)) and len(class_weights(config, task, [])) != len(task.labels):
        raise UserError("--class_weights: task %s has %d labels, got %d weights"
                        % (task.name, len(task.labels), len(config.class_weights)))
    if config.best_metric and config.best_metric not in scores.metrics_of(len(task.labels), task.choices):
        raise UserError("--best_metric: task %s has no %s" % (task.name, config.best_metric))
    if config.early_stopping and device.world.size > 1:
        raise UserError("--early_stopping works on one device, not on %d" % device.world.size)
    if config.pad_to_max_length is False and not device.on_host:
        raise UserError("--pad_to_max_length must not be false on the NPU: it needs static lengths")


def class_weights(config: FinetuneConfig, task: Task, label_ids: Sequence[int]) -> List[float]:
    """A weight for each class; [] where all count the same. Balanced: n / (classes · n of the class)."""
    if config.class_weights == (BALANCED,):
        counts = [max(1, list(label_ids).count(number)) for number in range(len(task.labels))]
        return [len(label_ids) / (len(counts) * count) for count in counts]
    try:
        weights = [float(weight) for weight in config.class_weights]
    except ValueError:
        weights = [-1.0]
    if any(not 0 <= weight < float("inf") for weight in weights) or (weights and not any(weights)):
        raise UserError("--class_weights must be %s, or numbers of at least 0, not all of them 0; got %s"
                        % (BALANCED, " ".join(config.class_weights)))
    return weights


def find_init_checkpoint(config: FinetuneConfig) -> Optional[str]:
    """The prefix of --init_checkpoint; None for random values, or without training."""
    if not config.do_train or config.init_checkpoint == NO_CHECKPOINT:
        return None
    if not (os.path.exists(config.init_checkpoint) or os.path.exists(config.init_checkpoint + ".index")):
        raise UserError("--init_checkpoint: %s: no such file or folder: run python -m estimator.pretrain first, give a "
                        "checkpoint, or %s to start from random values" % (config.init_checkpoint, NO_CHECKPOINT))
    from estimator import checkpoint_files
    return checkpoint_files.resolve(config.init_checkpoint)


def describe_model(config: FinetuneConfig, task: Task, init_checkpoint: Optional[str]) -> ModelFolder:
    """What will stand beside the checkpoints, or does, without training.

    Config and vocabulary come from the flags, else from beside the checkpoint. From random values they are the shipped
    ones by default; beside a released checkpoint stands no description, and both must be given.
    """
    if not config.do_train:
        beside: Optional[ModelFolder] = model_folder.read(config.output_dir)
    else:
        beside = model_folder.beside(init_checkpoint) if init_checkpoint else None
    if init_checkpoint and not beside and not (config.albert_config_file and (config.vocab_file or config.spm_model_file)):
        raise UserError("--init_checkpoint: beside %s there is no %s to say what it is: give --albert_config_file and "
                        "--vocab_file or --spm_model_file" % (init_checkpoint, model_folder.DESCRIPTION_FILE))
    if config.albert_config_file or not beside:
        model = albert_config.load(config.albert_config_file or "tiny")
    else:
        model = beside.config
    tokenizer = choose_tokenizer(config, beside)
    return model_folder.from_flags(model, tokenizer, config.max_seq_length, task.name, task.labels,
                                   beside.data_manifest_sha256 if beside else None)


def choose_tokenizer(config: FinetuneConfig, beside: Optional[ModelFolder]) -> TokenizerConfig:
    """The tokenizer of the flags, else of the model; a vocabulary that is not the model's is refused."""
    given = config.spm_model_file or config.vocab_file
    if beside:
        tokenizer = beside.tokenizer
        ours = tokenizer.spm_model_file or tokenizer.vocab_file
        if given and files.sha256_of_file(given) != files.sha256_of_file(ours):
            raise UserError("--%s: %s is not the vocabulary that the model was trained with, %s: leave the flag out"
                            % ("spm_model_file" if config.spm_model_file else "vocab_file", given, ours))
    elif config.spm_model_file:
        tokenizer = TokenizerConfig(spm_model_file=config.spm_model_file)
    else:
        tokenizer = TokenizerConfig(config.vocab_file or albert_config.vocab_path())
    if config.do_lower_case is None:
        return tokenizer
    return dataclasses.replace(tokenizer, do_lower_case=config.do_lower_case)


def encoding_of(config: FinetuneConfig, folder: ModelFolder) -> encoded.Encoding:
    return encoded.Encoding(folder.tokenizer, folder.max_seq_length, config.doc_stride, folder.labels)


def cache_dir_of(config: FinetuneConfig) -> str:
    return config.cache_dir or os.path.join(config.output_dir, CACHE_FOLDER)


def save_encoded(plan: Plan) -> None:
    """Keeps the rows of all parts for the next run."""
    encoding, cache_dir = encoding_of(plan.config, plan.folder), cache_dir_of(plan.config)
    for part in plan.parts.values():
        encoded.save(part.rows, encoded.cache_path(part.examples, encoding, cache_dir))


def started_from(config: FinetuneConfig, folder: ModelFolder, examples: Sequence[tasks.Example],
                 init_checkpoint: Optional[str], device: npu.Device) -> Dict[str, str]:
    """What must be the same for a training to go on, beside the model: its beginning and its examples."""
    key = os.path.basename(encoded.cache_path(examples, encoding_of(config, folder), ""))
    return {"initial values": resume.checkpoint_fact(init_checkpoint), "training data": "of SHA-256 %s" % key[:12],
            "number of devices": str(device.world.size)}


def make_training(plan: Plan) -> Any:
    """Puts together what `trainer` runs."""
    from estimator import input_fn
    from estimator.model_fn import classifier_model_fn
    from estimator.trainer import Training
    config, rows = plan.config, plan.parts[TRAIN].rows if TRAIN in plan.parts else None
    numbers = config.training(plan.device, config.train_batch_size, plan.num_train_steps,
                              int(plan.num_train_steps * config.warmup_proportion), start_step=plan.start_step,
                              init_checkpoint=None if plan.start_step else plan.init_checkpoint)
    weights = class_weights(config, plan.task, rows.label_ids.tolist()) if rows else []
    estimator = plan.device.make_estimator(classifier_model_fn(plan.folder.config, numbers, len(plan.task.labels), weights),
                                           config.output_dir, config.run_options())

    def batches(done: int) -> Any:
        return input_fn.train_on_rows(rows, config.train_batch_size, config.random_seed, done, plan.seq_length,
                                      plan.device.world)
    if config.do_train:
        batches(0)                             # refuses data that does not fill a batch before anything is written
    return Training("estimator.finetune", config, plan.facts, plan.folder, plan.device, estimator, batches,
                    "--train_batch_size %d" % config.train_batch_size, plan.num_train_steps,
                    lambda: evaluate(plan, estimator), plan.eval_every, plan.best_metric, config.early_stopping)


def evaluate(plan: Plan, estimator: Any) -> Dict[str, Any]:
    """Evaluates the latest checkpoint on all dev examples."""
    from estimator import checkpoint_files, metrics
    checkpoint = checkpoint_files.resolve(plan.config.output_dir, "output_dir")
    results, _ = evaluate_part(plan, estimator, DEV, checkpoint)
    metrics.write_results(plan.config.output_dir, results)
    metrics.write_curve_points(os.path.join(plan.config.output_dir, "eval"), results["global_step"],
                               dict(results, loss=results["eval_loss"]))
    print("Step %d, %s" % (results["global_step"], evaluation.results_line(plan.task, results)))
    return results


def evaluate_part(plan: Plan, estimator: Any, part: str, checkpoint: str) -> Tuple[Dict[str, Any], Any]:
    """The numbers of a dev part, and the outputs they are of."""
    import tensorflow.compat.v1 as tf
    from estimator import failures
    config, found = plan.config, plan.parts[part]
    with failures.explained("--eval_batch_size %d" % config.eval_batch_size):
        outputs = evaluation.run_model(estimator, found.rows, config.eval_batch_size, plan.seq_length, checkpoint)
    step = int(tf.train.load_variable(checkpoint, "global_step"))
    return dict(evaluation.score(plan.task, found, outputs), global_step=step), outputs


def report(plan: Plan, estimator: Any, checkpoint: str) -> Dict[str, Any]:
    """Evaluates the best checkpoint on all dev parts; writes results, predictions and the page."""
    from estimator import finetune_report, metrics, training_report
    folder = plan.config.output_dir
    results, paths, sections = {}, [os.path.join(folder, metrics.TEXT_FILE)], []
    for name in [part for part in plan.parts if part.startswith(DEV)]:
        found, outputs = evaluate_part(plan, estimator, name, checkpoint)
        results.update(found)
        paths += evaluation.write_predictions(folder, plan.task, plan.parts[name], outputs)
        if name == DEV:
            sections = finetune_report.sections(plan.task, plan.parts[DEV], outputs)
    metrics.write_results(folder, results)
    title = "Fine-tuning: %s" % plan.task.name
    paths.append(training_report.write_report(folder, title, finetune_report.CHARTS, sections, "best"))
    print("Best checkpoint, step %d, %s" % (results["global_step"], evaluation.results_line(plan.task, results)))
    print("Wrote %s" % ", ".join(paths))
    return results


def predict(plan: Plan, estimator: Any, checkpoint: str) -> None:
    """Writes the predictions for all test examples, in the file's order."""
    from estimator import failures
    config = plan.config
    for name in [part for part in plan.parts if part.startswith(TEST)]:
        part = plan.parts[name]
        with failures.explained("--predict_batch_size %d" % config.predict_batch_size):
            outputs = evaluation.run_model(estimator, part.rows, config.predict_batch_size, plan.seq_length, checkpoint)
        paths = evaluation.write_predictions(config.output_dir, plan.task, part, outputs)
        if part.has_labels:
            number = evaluation.score(plan.task, part._replace(name=DEV), outputs)["eval_" + plan.task.metric]
            print("Test: %s %.4f of %d examples" % (plan.task.metric, number, len(part.examples)))
        print("Wrote %s" % ", ".join(paths))


if __name__ == "__main__":
    raise SystemExit(main())
