"""Fine-tuning with batches padded to their longest row, against padding all to --max_seq_length: pace and
dev accuracy.

  python test/benchmark/finetune_speed.py --data path/to/afqmc --task afqmc --init_checkpoint output/pretrain

The same examples, seeds and steps in turn both ways, in one process. Paces are examples a second: of training
as its lines of progress tell it, without start and evaluation; of evaluation, which is prediction, with the
time to start.
"""
import argparse
import contextlib
import io
import os
import time
from typing import NamedTuple

import numpy as np

import results
from estimator.data import tasks
from estimator.finetuning import predictions, scores
from estimator.finetuning import job as finetuning
from estimator.finetuning.flags import NO_CHECKPOINT, FinetuneConfig
from estimator.training import curves, run
from estimator.weights import checkpoint_files
from etl.common import files
from etl.common.command_line import quiet_libraries

ROOT = os.path.dirname(os.path.dirname(os.path.dirname(os.path.abspath(__file__))))
WAYS = {"padded to %d": True, "to the longest": False}


class Measured(NamedTuple):
    """One run."""
    training: float                            # examples a second
    evaluation: float                          # examples a second
    accuracy: float


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__,
                                     formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", default=os.path.join(ROOT, "estimator", "sample"),
                        help="folder of train and dev")
    parser.add_argument("--task", default="sentence_pair",
                        help="as --task_name of estimator.finetune; one of classes")
    parser.add_argument("--init_checkpoint", default=NO_CHECKPOINT, help="checkpoint to start from")
    parser.add_argument("--config", help="config; without it the one beside the checkpoint, or tiny")
    parser.add_argument("--max_seq_length", type=int, default=128, help="tokens of an example")
    parser.add_argument("--train_examples", type=int, default=1600, help="at most; of the file's beginning")
    parser.add_argument("--dev_examples", type=int, default=5000, help="at most; of the file's beginning")
    parser.add_argument("--batch_size", type=int, default=32, help="of training and of evaluation")
    parser.add_argument("--learning_rate", type=float, default=1e-4, help="highest learning rate")
    parser.add_argument("--seeds", default="1,2,3", help="one run each way for each")
    parser.add_argument("--output", default=os.path.join(ROOT, "output", "bench", "finetune_speed"),
                        help="folder")
    parser.add_argument("--results", help="file to add the rounds to, as JSON lines")
    arguments = parser.parse_args()
    if os.path.exists(arguments.output):
        raise SystemExit("%s exists: remove it, or give another --output" % arguments.output)
    quiet_libraries()
    data = os.path.join(arguments.output, "data")
    examples = {part: tasks.read_examples(tasks.TASKS[arguments.task], arguments.data, part)[:limit]
                for part, limit in (
                    (tasks.TRAIN, arguments.train_examples), (tasks.DEV, arguments.dev_examples))}
    arguments.generic_task = "single_sentence" if examples[tasks.TRAIN][0].text_b is None else "sentence_pair"
    for part, found in examples.items():
        files.write_text(os.path.join(data, part + ".jsonl"), predictions.json_lines([
            {"text_a": example.text_a, "text_b": example.text_b, "label": example.label}
            for example in found]))
    print("%s: %d examples to train on, %d dev, batches of %d" % (
        arguments.data, *map(len, examples.values()), arguments.batch_size))
    print("%6s %-16s %20s %22s %14s" % ("seed", "batches", "training, examples/s", "evaluation, examples/s",
                                        "dev accuracy"))
    found = {way: [] for way in WAYS}
    for number, seed in enumerate(map(int, arguments.seeds.split(","))):
        for way in list(WAYS)[::1 if number % 2 else -1]:
            measured = measure(arguments, data, seed, WAYS[way])
            found[way].append(measured)
            print("%6d %-16s %20.1f %22.1f %14.4f" % (seed, name_of(way, arguments), *measured), flush=True)
    medians = {way: np.median(runs, axis=0) for way, runs in found.items()}
    for way, runs in found.items():
        print("%6s %-16s %20.1f %22.1f %22s" % ("median", name_of(way, arguments), *medians[way][:2],
                                                scores.mean_and_deviation([run.accuracy for run in runs])))
    padded, longest = (medians[way] for way in WAYS)
    print("To the longest: training %.2f times as fast, evaluation and prediction %.2f times"
          % tuple(longest[:2] / padded[:2]))
    for part in ("training", "evaluation"):
        results.append(arguments.results, "finetune_speed", part, "examples/s", {
            name_of(way, arguments) if pad else results.OURS: [getattr(run, part) for run in found[way]]
            for way, pad in WAYS.items()})


def name_of(way: str, arguments: argparse.Namespace) -> str:
    return way % arguments.max_seq_length if "%" in way else way


def measure(arguments: argparse.Namespace, data: str, seed: int, pad: bool) -> Measured:
    output = os.path.join(arguments.output, "%s-%d" % ("padded" if pad else "longest", seed))
    config = FinetuneConfig(
        task_name=arguments.generic_task, data_dir=data, output_dir=output,
        cache_dir=os.path.join(arguments.output, "encoded"), random_seed=seed,
        init_checkpoint=arguments.init_checkpoint, albert_config_file=arguments.config, pad_to_max_length=pad,
        max_seq_length=arguments.max_seq_length, train_batch_size=arguments.batch_size,
        eval_batch_size=arguments.batch_size,
        learning_rate=arguments.learning_rate, num_train_epochs=1, log_steps=5, do_train=True, do_eval=True)
    with contextlib.redirect_stdout(io.StringIO()):
        results = finetuning.finetune(config)
        job = finetuning.make_job(config)
        estimator = run.make_estimator(job)
        begin = time.time()
        job.evaluate(estimator, checkpoint_files.resolve(output))
    seconds = time.time() - begin
    paces = [pace for _, pace in curves.read_curves(output)["examples_per_second"]]
    return Measured(1 / np.mean(1 / np.array(paces)), results["num_examples"] / seconds,
                    results["eval_accuracy"])


if __name__ == "__main__":
    main()
