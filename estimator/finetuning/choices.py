"""One of several candidates, which stand in a batch together: one score each, a softmax over them."""
import json
from typing import Any, Dict, List, Mapping, NamedTuple, Optional, Sequence, Tuple

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
from estimator.finetuning.span_decoding import TIE
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
          Chart("Accuracy", ("eval_accuracy",), "share", "longest_candidate_accuracy"),
          *pace_charts("questions"))


class Outputs(NamedTuple):
    """What a model says of the candidates of each question of a part; both float64 [questions, most
    candidates].

    Attributes:
      scores: -inf for what others have more.
      probabilities: a softmax over them.
    """
    scores: np.ndarray
    probabilities: np.ndarray


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
    return Found(found.loss, {"eval_accuracy": tf.reduce_mean(right)}, {"scores": found.logits})


def run_model(setting: Setting, estimator: Any, part: Part, batch_size: int, checkpoint: str) -> Outputs:
    counts = part.rows.rows_of_examples
    found = np.full((len(part.examples), int(counts.max())), -np.inf)
    for numbers, batch in collect(estimator, part.rows, batch_size, setting.seq_length, checkpoint):
        found[numbers, :batch["scores"].shape[1]] = batch["scores"]
    found[np.arange(found.shape[1]) >= counts[:, np.newaxis]] = -np.inf
    weights = np.exp(found - found.max(axis=1, keepdims=True))
    return Outputs(found, weights / weights.sum(axis=1, keepdims=True))


def chosen(setting: Setting, part: Part, outputs: Outputs) -> np.ndarray:
    """The candidate of each question, by number: the likeliest, or by the rule of --exclusive_candidates."""
    if setting.config.exclusive_candidates:
        return exclusive(
            [example.group for example in part.examples],
            [row[:len(example.candidates)] for example, row in zip(part.examples, outputs.scores)])
    return best_of(outputs.scores)


def best_of(scores_of: np.ndarray) -> np.ndarray:
    """The number of the highest score in each row; of such as differ by rounding alone the first.

    `[[1, 1.00005, 0]]` → 0.
    """
    return (scores_of >= scores_of.max(axis=1, keepdims=True) - TIE).argmax(axis=1)


def exclusive(groups: Sequence[Any], scores_of: Sequence[np.ndarray]) -> np.ndarray:
    """A candidate for each question, such that questions of one group take none twice: of all pairs of a
    question and a candidate the one of the highest score, then of those that are left, and so on. Of equal
    scores the first candidate, then the first question. Where questions outnumber candidates, the last ones
    take what is best for them. None groups nothing.

    CLUE's script does so that writes a submission for ChID (CHID_preprocess.py, logits_matrix_to_array), by
    scores: a softmax over each question's would give another order of pairs.

    `([1, 1], [[5, 4], [9, 1]])` → 1, 0.
    """
    found = np.array([row.argmax() for row in scores_of])
    members: Dict[Any, List[int]] = {}
    for number, group in enumerate(groups):
        if group is not None:
            members.setdefault(group, []).append(number)
    for numbers in members.values():
        pairs = sorted(((-value, candidate, number) for number in numbers
                        for candidate, value in enumerate(scores_of[number])))
        open_numbers, free = set(numbers), set(range(max(len(scores_of[number]) for number in numbers)))
        for _, candidate, number in pairs:
            if number in open_numbers and candidate in free:
                found[number] = candidate
                open_numbers.remove(number)
                free.remove(candidate)
    return found


def score(setting: Setting, part: Part, outputs: Outputs) -> Results:
    """All numbers of a part with labels, and what is reached by chance, by the place that is right most
    often, and by the longest candidate, of equally long ones the first."""
    labels = np.array([example.label for example in part.examples])
    longest = np.array([np.argmax([len(text) for text in example.candidates]) for example in part.examples])
    return {
        "eval_accuracy": scores.accuracy(labels, chosen(setting, part, outputs)),
        "eval_loss": scores.cross_entropy(labels, outputs.probabilities),
        "chance_accuracy": float(np.mean(1 / part.rows.rows_of_examples)),
        "majority_accuracy": scores.majority_accuracy(labels),
        "longest_candidate_accuracy": scores.accuracy(labels, longest),
        "num_examples": len(part.examples)
    }


def results_line(task: Task, results: Results) -> str:
    """`1991 dev questions: eval_accuracy 0.4123 (chance 0.2777, commonest place 0.2647, longest candidate
    0.3496)  eval_loss 1.2345`."""
    return ("{num_examples} dev questions: eval_accuracy {eval_accuracy:.4f} (chance {chance_accuracy:.4f}, "
            "commonest place {majority_accuracy:.4f}, longest candidate {longest_candidate_accuracy:.4f})  "
            "eval_loss {eval_loss:.4f}").format(**results)


def write_predictions(folder: str, setting: Setting, part: Part, outputs: Outputs) -> List[str]:
    """Writes an object for each question and, for test parts, what CLUE wants: lines of id and label, for
    chid one object of them. Returns the paths."""
    taken = chosen(setting, part, outputs)
    lines = [{"id": example.id, "question": example.question, "passage": example.passage,
              "candidates": list(example.candidates), "gold": example.label, "predicted": int(number),
              "probabilities": [round(float(value), 6) for value in row[:len(example.candidates)]]}
             for example, number, row in zip(part.examples, taken, outputs.probabilities)]
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


def sections(setting: Setting, part: Part, outputs: Outputs) -> Sequence[Section]:
    """Below the curves: accuracy by the number of candidates, the hardest questions."""
    labels = np.array([example.label for example in part.examples])
    taken, counts = chosen(setting, part, outputs), part.rows.rows_of_examples
    by_count = [(int(count), int((counts == count).sum()), float(np.mean((taken == labels)[counts == count])))
                for count in sorted(set(counts))]
    losses = scores.losses(labels, outputs.probabilities)
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
