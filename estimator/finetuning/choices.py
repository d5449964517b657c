"""One of several candidates, which stand in a batch together: one score each, a softmax over them."""
import json
from typing import Any, Dict, List, Mapping, Optional, Sequence, Tuple

import numpy as np
import tensorflow.compat.v1 as tf

from albert_config import AlbertConfig
from estimator.data import candidates, tasks
from estimator.data.candidates import ChoiceExample
from estimator.data.rows import Rows, RowsConfig, join_rows
from estimator.data.tasks import TEST, Task
from estimator.finetuning import scores
from estimator.finetuning.flags import FinetuneConfig
from estimator.finetuning.kind import Kind, Setting
from estimator.finetuning.predictions import PREDICTIONS_FILE, Part, collect, json_lines, write_all
from estimator.model import heads, modeling
from estimator.model.kernels import Dropout
from estimator.model.kinds import CHOICES
from estimator.training import model_fn
from estimator.training.curves import Chart, pace_charts
from estimator.training.jobs import Results
from estimator.training.model_fn import Found, ModelFn, TrainingConfig
from estimator.weights.model_folder import ModelFolder
from etl.reports.page import Section, table
from etl.text.pairs import pack_pair
from etl.text.tokenization import load_tokenizer

METRICS = ("accuracy", "loss")
HARDEST = 30
CHARTS = (Chart("Loss; cross-entropy over the candidates, in nats", ("loss",), "loss"),
          Chart("Accuracy", ("eval_accuracy",), "share", "chance_accuracy"),
          *pace_charts("questions"))


def read_examples(config: FinetuneConfig, task: Task, part: str) -> List[ChoiceExample]:
    """The questions of a part."""
    paths, layout = tasks.find_files(task, str(config.data_dir), part)
    return candidates.read_choices(paths, layout.read, part.startswith(TEST))


def check_flags(config: FinetuneConfig, task: Task, examples: Dict[str, List[ChoiceExample]]) -> None:
    """Raises UserError for flags that do not fit the task."""
    config.check_task(task, METRICS)


def describe(config: FinetuneConfig, task: Task) -> Dict[str, Any]:
    """What the model's folder says of it."""
    return {"kind": CHOICES, "labels": ()}


def rows_config_of(config: FinetuneConfig, folder: ModelFolder) -> RowsConfig:
    return RowsConfig(folder.tokenizer, folder.max_seq_length, kind=CHOICES)


def make_rows(examples: Sequence[ChoiceExample], rows_config: RowsConfig) -> Rows:
    """A row for each candidate: `[CLS] passage [SEP] question with the candidate [SEP]`; label_ids are
    numbers of candidates, one for each question, 0 where it is not known."""
    tokenizer = load_tokenizer(rows_config.tokenizer)
    packed = [(number, pack_pair(tokenizer, example.passage, candidates.filled(example.question, candidate),
                                 rows_config.max_seq_length, keeps_end_of_b=True))
              for number, example in enumerate(examples) for candidate in example.candidates]
    return join_rows([pair.input_ids for _, pair in packed], [pair.segment_ids for _, pair in packed],
                     [number for number, _ in packed],
                     np.array([example.label or 0 for example in examples], np.int32),
                     together=np.array(True))


def tell_rows(setting: Setting, part: Part) -> None:
    """Says how many rows there are, and how many of them are full, since their passage may have been cut."""
    lengths = part.rows.lengths
    print(
        "%s: %d candidates of %d questions; %d of them fill --max_seq_length %d: what does not fit of their "
        "passages is cut" % (part.name, len(lengths), len(part.examples),
                             (lengths == setting.folder.max_seq_length).sum(), setting.folder.max_seq_length))


def make_model_fn(setting: Setting, numbers: TrainingConfig) -> ModelFn:
    """One score for each candidate."""
    return model_fn.finetuning_model_fn(setting.folder.config, numbers, _head)


def _head(config: AlbertConfig, encoded: modeling.EncoderOutput, features: Mapping[str, tf.Tensor],
          dropout: Optional[Dropout]) -> Found:
    is_candidate = features["input_mask"][:, :, 0] > 0
    labels = features["label_ids"]
    found = heads.choices(config, encoded, is_candidate, labels, dropout)
    right = tf.cast(tf.equal(found.predictions, labels), tf.float32)
    return Found(found.loss, {"eval_accuracy": tf.reduce_mean(right)}, {"outputs": found.probabilities})


def run_model(setting: Setting, estimator: Any, part: Part, batch_size: int, checkpoint: str) -> np.ndarray:
    """Probabilities of each question's candidates, float64 [questions, most candidates]; 0 for what others
    have more."""
    outputs = np.zeros((len(part.examples), int(part.rows.rows_of_examples.max())))
    for numbers, batch in collect(estimator, part.rows, batch_size, setting.seq_length, checkpoint):
        outputs[numbers, :batch["outputs"].shape[1]] = batch["outputs"]
    return outputs


def chosen(setting: Setting, part: Part, outputs: np.ndarray) -> np.ndarray:
    """The candidate of each question, by number: the likeliest, or by the rule of --exclusive_candidates."""
    if setting.config.exclusive_candidates:
        return exclusive(
            [example.group for example in part.examples],
            [outputs[number, :len(example.candidates)] for number, example in enumerate(part.examples)])
    return outputs.argmax(axis=1)


def exclusive(groups: Sequence[Any], probabilities: Sequence[np.ndarray]) -> np.ndarray:
    """A candidate for each question, such that questions of one group take none twice: of all pairs of a
    question and a candidate the likeliest, then the likeliest of those that are left, and so on, as the
    script of CLUE does that writes a submission for ChID. None groups nothing.

    `([1, 1], [[.6, .4], [.9, .1]])` → 1, 0.
    """
    found = np.array([row.argmax() for row in probabilities])
    members: Dict[Any, List[int]] = {}
    for number, group in enumerate(groups):
        if group is not None:
            members.setdefault(group, []).append(number)
    for numbers in members.values():
        pairs = sorted(((-value, candidate, number) for number in numbers
                        for candidate, value in enumerate(probabilities[number])))
        open_numbers, free = set(numbers), set(range(max(len(probabilities[number]) for number in numbers)))
        for _, candidate, number in pairs:
            if number in open_numbers and candidate in free:
                found[number] = candidate
                open_numbers.remove(number)
                free.remove(candidate)
    return found


def score(setting: Setting, part: Part, outputs: np.ndarray) -> Results:
    """All numbers of a part with labels, and what chance would reach."""
    labels = np.array([example.label for example in part.examples])
    return {
        "eval_accuracy": scores.accuracy(labels, chosen(setting, part, outputs)),
        "eval_loss": scores.cross_entropy(labels, outputs),
        "chance_accuracy": float(np.mean(1 / part.rows.rows_of_examples)),
        "num_examples": len(part.examples)
    }


def results_line(task: Task, results: Results) -> str:
    """`1991 dev questions: eval_accuracy 0.4123 (chance 0.2756)  eval_loss 1.2345`."""
    return "%d dev questions: eval_accuracy %.4f (chance %.4f)  eval_loss %.4f" % (
        results["num_examples"], results["eval_accuracy"], results["chance_accuracy"], results["eval_loss"])


def write_predictions(folder: str, setting: Setting, part: Part, outputs: np.ndarray) -> List[str]:
    """Writes an object for each question and, for test parts, what CLUE wants: lines of id and label, for
    chid one object of them. Returns the paths."""
    taken = chosen(setting, part, outputs)
    lines = [{"id": example.id, "question": example.question, "passage": example.passage,
              "candidates": list(example.candidates), "gold": example.label, "predicted": int(number),
              "probabilities": [round(float(value), 6) for value in row[:len(example.candidates)]]}
             for example, number, row in zip(part.examples, taken, outputs)]
    written = {part.prefix + PREDICTIONS_FILE: json_lines(lines)}
    if part.name.startswith(TEST):
        ids = [number if example.id is None else example.id for number, example in enumerate(part.examples)]
        name = setting.task.submission or "%s_predict.json" % setting.task.name
        written[name] = (json.dumps(dict(zip(ids, taken.tolist())), ensure_ascii=False, indent=1) +
                         "\n" if setting.task.name == "chid" else json_lines([{
                             "id": identity,
                             "label": int(number)
                         } for identity, number in zip(ids, taken)]))
    return write_all(folder, written)


def sections(setting: Setting, part: Part, outputs: np.ndarray) -> Sequence[Section]:
    """Below the curves: accuracy by the number of candidates, the hardest questions."""
    labels = np.array([example.label for example in part.examples])
    taken, counts = chosen(setting, part, outputs), part.rows.rows_of_examples
    by_count = [(int(count), int((counts == count).sum()), float(np.mean((taken == labels)[counts == count])))
                for count in sorted(set(counts))]
    losses = scores.losses(labels, outputs)
    return [Section("Candidates", [table(["candidates", "questions", "accuracy"], by_count)]),
            Section("Hardest questions", [
                "Those whose right candidate is least likely. Many of them are wrong labels.",
                table(["id", "question", "right", "given", "loss"],
                      [_hard(part.examples[number], int(taken[number]), float(losses[number]))
                       for number in np.argsort(-losses, kind="stable")[:HARDEST]])])]


def _hard(example: ChoiceExample, taken: int, loss: float) -> Tuple[Any, ...]:
    return (str(example.id), example.question or example.passage[:80], example.candidates[example.label or 0],
            example.candidates[taken], loss)


CHOICE_KIND = Kind(
    read_examples=read_examples,
    check_flags=check_flags,
    describe=describe,
    rows_config=rows_config_of,
    make_rows=make_rows,
    tell_rows=tell_rows,
    model_fn=make_model_fn,
    run_model=run_model,
    score=score,
    results_line=results_line,
    write_predictions=write_predictions,
    sections=sections,
    charts=CHARTS)
