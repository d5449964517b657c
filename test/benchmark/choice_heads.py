"""Which head is the better one for questions with candidates: one score for each candidate and a softmax over
a question's, as the tasks of choices have, or two classes, right and wrong, for each pair of a question and a
candidate, as copa had in earlier versions.

  python test/benchmark/choice_heads.py --data path/to/c3 --init_checkpoint output/pretrain

Both are trained on the same candidates, written as the same rows, with the same seeds, epochs and rates; a
batch of questions holds as many rows as one of pairs. Of pairs the candidate is taken that is right with the
highest probability. Prints the dev accuracy of each, over questions.
"""
import argparse
import contextlib
import io
import json
import os

from estimator.data import candidates, tasks
from estimator.finetuning import job as finetuning
from estimator.finetuning import predictions, scores
from estimator.finetuning.flags import NO_CHECKPOINT, FinetuneConfig
from etl.common import files
from etl.common.command_line import quiet_libraries

ROOT = os.path.dirname(os.path.dirname(os.path.dirname(os.path.abspath(__file__))))
PARTS = (tasks.TRAIN, tasks.DEV)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__,
                                     formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", required=True, help="folder of train and dev")
    parser.add_argument("--task", default="c3", help="as --task_name of estimator.finetune; one of choices")
    parser.add_argument("--init_checkpoint", default=NO_CHECKPOINT, help="checkpoint to start from")
    parser.add_argument("--config", help="config; without it the one beside the checkpoint")
    parser.add_argument("--max_seq_length", type=int, default=128, help="tokens of a row")
    parser.add_argument("--batch_size", type=int, default=16, help="questions of a batch")
    parser.add_argument("--learning_rate", type=float, default=5e-4, help="highest learning rate")
    parser.add_argument("--epochs", type=float, default=1, help="passes over the training questions")
    parser.add_argument("--seeds", default="1,2,3", help="one run each way for each")
    parser.add_argument("--output", default=os.path.join(ROOT, "output", "bench", "choice_heads"),
                        help="folder")
    arguments = parser.parse_args()
    if os.path.exists(arguments.output):
        raise SystemExit("%s exists: remove it, or give another --output" % arguments.output)
    quiet_libraries()
    questions = {part: read(arguments.task, arguments.data, part) for part in PARTS}
    pairs = os.path.join(arguments.output, "pairs")
    for part, found in questions.items():
        files.write_text(os.path.join(pairs, part + ".jsonl"), predictions.json_lines([
            {"text_a": question.passage, "text_b": candidates.filled(question.question, candidate),
             "label": str(int(number == question.label))}
            for question in found for number, candidate in enumerate(question.candidates)]))
    rows_a_question = sum(len(question.candidates) for question in questions[tasks.TRAIN]) / len(
        questions[tasks.TRAIN])
    ways = {"one score, a softmax": (arguments.task, arguments.data, arguments.batch_size),
            "two classes a pair": ("sentence_pair", pairs, round(arguments.batch_size * rows_a_question))}
    accuracies = {way: [] for way in ways}
    for seed in map(int, arguments.seeds.split(",")):
        for way, (task, data, batch_size) in ways.items():
            output = os.path.join(arguments.output, "%s-%d" % (task, seed))
            train(arguments, task, data, batch_size, seed, output)
            accuracies[way].append(accuracy(questions[tasks.DEV], task, output))
            print("seed %d, %s: accuracy %.4f" % (seed, way, accuracies[way][-1]), flush=True)
    for way, found in accuracies.items():
        print("%s: accuracy %s of %d questions" % (way, scores.mean_and_deviation(found),
                                                   len(questions[tasks.DEV])))


def read(task: str, data: str, part: str):
    paths, layout = tasks.find_files(tasks.TASKS[task], data, part)
    return candidates.read_choices(paths, layout.read, False)


def train(arguments: argparse.Namespace, task: str, data: str, batch_size: int, seed: int,
          output: str) -> None:
    with contextlib.redirect_stdout(io.StringIO()):
        finetuning.finetune(FinetuneConfig(
            task_name=task, data_dir=data, output_dir=output, random_seed=seed,
            cache_dir=os.path.join(arguments.output, "encoded"), init_checkpoint=arguments.init_checkpoint,
            albert_config_file=arguments.config, max_seq_length=arguments.max_seq_length,
            train_batch_size=batch_size, eval_batch_size=batch_size, learning_rate=arguments.learning_rate,
            num_train_epochs=arguments.epochs, best_metric="loss", do_train=True, do_eval=True))


def accuracy(questions, task: str, output: str) -> float:
    """Of the candidates that the run's best checkpoint takes."""
    with open(os.path.join(output, predictions.PREDICTIONS_FILE), encoding="utf-8") as stream:
        lines = [json.loads(line) for line in stream]
    if task != "sentence_pair":
        return sum(line["predicted"] == line["gold"] for line in lines) / len(lines)
    right = 0
    for question in questions:
        of_question, lines = lines[:len(question.candidates)], lines[len(question.candidates):]
        probabilities = [line["probabilities"]["1"] for line in of_question]
        right += probabilities.index(max(probabilities)) == question.label
    return right / len(questions)


if __name__ == "__main__":
    main()
