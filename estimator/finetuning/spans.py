"""The answer to a question, which is a part of a passage of any length."""
import dataclasses
import json
from typing import Any, Dict, Iterator, List, Mapping, NamedTuple, Optional, Sequence, Tuple

import numpy as np
import tensorflow.compat.v1 as tf

from albert_config import AlbertConfig
from estimator.data import reading, tasks
from estimator.data.rows import Rows, RowsConfig, rows_of_windows
from estimator.data.reading import Answer, ReadingExample
from estimator.data.tasks import TEST, TRAIN, Task
from estimator.finetuning import answer_scores, passage_baselines, span_decoding, span_report
from estimator.finetuning.answer_scores import MEASURES
from estimator.finetuning.flags import FinetuneConfig
from estimator.finetuning.kind import Kind, Setting
from estimator.finetuning.predictions import Part, collect, write_all
from estimator.finetuning.span_decoding import Candidate
from estimator.model import heads, modeling
from estimator.model.kernels import Dropout
from estimator.model.kinds import SPANS
from estimator.training import model_fn
from estimator.training.jobs import Results
from estimator.training.model_fn import Found, ModelFn, TrainingConfig
from estimator.weights.model_folder import ModelFolder, Reading
from etl.common.command_line import UserError
from etl.reports.page import Section
from etl.text.tokenization import load_tokenizer
from etl.text.windows import Pieces, Window, check_windows, pack_windows, pieces_of

METRICS = ("f1", "exact_match", "loss")
PREDICTIONS_FILE, NBEST_FILE, NULL_FILE = "predictions.json", "nbest_predictions.json", "null_odds.json"
NOWHERE = (0, 0)                               # the tokens of an answer that a window does not hold: [CLS]


class Outputs(NamedTuple):
    """What a model says of the questions of a part.

    Attributes:
      candidates: the best answers of each, the best first.
      null_scores: float32 [examples]: the lowest of its windows' scores of no answer.
      loss: mean over the windows of questions whose answers are known.
    """
    candidates: List[List[Candidate]]
    null_scores: np.ndarray
    loss: float


def read_examples(config: FinetuneConfig, task: Task, part: str) -> List[ReadingExample]:
    """The questions of a part."""
    (path,), _ = tasks.find_files(task, str(config.data_dir), part)
    return reading.read_squad(path, part == TRAIN, part.startswith(TEST), task.may_be_impossible,
                              config.skip_bad_answers)


def check_flags(config: FinetuneConfig, task: Task, examples: Dict[str, List[ReadingExample]]) -> None:
    """Raises UserError for flags that do not fit the task."""
    config.check_task(task, METRICS)
    if config.null_score_diff_threshold is not None and not task.may_be_impossible:
        raise UserError("--null_score_diff_threshold: each question of task %s has an answer" % task.name)
    reading_of = describe(config, task)["reading"]
    try:
        check_windows(config.max_seq_length or 0, reading_of.doc_stride, reading_of.max_query_length, True)
    except ValueError as error:
        raise UserError("--%s" % error)


def narrowed(task: Task, examples: Dict[str, List[ReadingExample]]) -> Task:
    """Where each question to be learned has an answer, the model always gives one."""
    if TRAIN in examples and all(example.label for example in examples[TRAIN]):
        return dataclasses.replace(task, may_be_impossible=False)
    return task


def describe(config: FinetuneConfig, task: Task) -> Dict[str, Any]:
    """What the model's folder says of it."""
    threshold = (config.null_score_diff_threshold or 0.0) if task.may_be_impossible else None
    return {"kind": SPANS, "labels": (), "reading": Reading(
        config.doc_stride or 0, config.max_query_length or 1, config.max_answer_length or 1, threshold)}


def rows_config_of(config: FinetuneConfig, folder: ModelFolder) -> RowsConfig:
    return RowsConfig(folder.tokenizer, folder.max_seq_length, config.doc_stride, kind=SPANS,
                    max_query_length=config.max_query_length)


def make_rows(examples: Sequence[ReadingExample], rows_config: RowsConfig) -> Rows:
    """A row for each window of each passage; label_ids are the tokens in which the first answer that stands
    at its offset begins and ends, where the window holds both."""
    tokenizer = load_tokenizer(rows_config.tokenizer)
    windows: List[Window] = []
    numbers: List[int] = []
    labels: List[Tuple[int, int]] = []
    passage, pieces = "", pieces_of(tokenizer, "")
    for number, example in enumerate(examples):
        if example.passage != passage:         # several questions on a passage follow each other
            passage, pieces = example.passage, pieces_of(tokenizer, example.passage)
        found = pack_windows(tokenizer, example.question, pieces, rows_config.max_seq_length,
                             rows_config.doc_stride or 0, rows_config.max_query_length or 0)
        answer = next((answer for answer in example.label or () if answer.start >= 0), None)
        windows += found
        numbers += [number] * len(found)
        labels += [NOWHERE if answer is None else tokens_of(answer, pieces, window) for window in found]
    return rows_of_windows(windows, numbers, np.array(labels, np.int32).reshape(-1, 2))


def tokens_of(answer: Answer, pieces: Pieces, window: Window) -> Tuple[int, int]:
    """The first and the last token that hold a character of the answer; NOWHERE unless the window has
    both."""
    inside = np.flatnonzero((pieces.spans[:, 1] > answer.start) & (pieces.spans[:, 0] < answer.end))
    if not len(inside):
        return NOWHERE
    first, last = window.token_of(int(inside[0])), window.token_of(int(inside[-1]))
    return NOWHERE if first is None or last is None else (first, last)


def tell_rows(setting: Setting, part: Part) -> None:
    """Says how many windows there are, and what cannot be learned."""
    rows = part.rows
    lost = 0
    if part.name == TRAIN:
        is_there = np.add.reduceat((rows.label_ids[:, 1] > 0).astype(np.int64), rows.first_rows) > 0
        lost = sum(bool(example.label) and not there for example, there in zip(part.examples, is_there))
    print("%s: %d windows of %d questions%s" % (
        part.name, len(rows.lengths), len(part.examples),
        "; %d answers stand whole in none of them, and are learned as none" % lost if lost else ""))


def make_model_fn(setting: Setting, numbers: TrainingConfig) -> ModelFn:
    """Two logits for each token."""
    return model_fn.finetuning_model_fn(setting.folder.config, numbers, _head, reads_all=True)


def _head(config: AlbertConfig, encoded: modeling.EncoderOutput, features: Mapping[str, tf.Tensor],
          dropout: Optional[Dropout]) -> Found:
    found = heads.spans(config, encoded, features["input_mask"], features["label_ids"])
    return Found(found.loss, {}, {"start_logits": found.start_logits, "end_logits": found.end_logits,
                                  "loss": found.per_example_loss})


def run_model(setting: Setting, estimator: Any, part: Part, batch_size: int, checkpoint: str) -> Outputs:
    """Of each window no more is kept than its best answers."""
    config, rows, count = setting.config, part.rows, setting.config.n_best_size or 1
    candidates: List[List[List[Candidate]]] = [[] for _ in part.examples]
    null_scores = np.full(len(part.examples), np.inf, np.float32)
    losses = []
    for number, row in _rows_of(collect(estimator, rows, batch_size, setting.seq_length, checkpoint)):
        example, begin, end = rows.example_numbers[number], rows.starts[number], rows.starts[number + 1]
        start_logits, end_logits = (row[name][:end - begin] for name in ("start_logits", "end_logits"))
        candidates[example].append(span_decoding.best_of_window(
            start_logits, end_logits, rows.spans[begin:end], config.max_answer_length or 1, count))
        null_scores[example] = min(null_scores[example], start_logits[0] + end_logits[0])
        label = part.examples[example].label
        if label is not None and (not label or any(answer.start >= 0 for answer in label)):
            losses.append(row["loss"])
    return Outputs([span_decoding.best_of_windows(windows, count) for windows in candidates],
                   null_scores, float(np.mean(losses)) if losses else 0.0)


def _rows_of(batches: Iterator[Tuple[np.ndarray, Dict[str, np.ndarray]]]
             ) -> Iterator[Tuple[int, Dict[str, np.ndarray]]]:
    for numbers, outputs in batches:
        for place, number in enumerate(numbers):
            yield int(number), {name: values[place] for name, values in outputs.items()}


def answers_of(setting: Setting, part: Part, outputs: Outputs) -> List[str]:
    """The answer to each question; "" for none."""
    threshold = describe(setting.config, setting.task)["reading"].null_score_diff_threshold
    return [example.passage[found[0].begin:found[0].end]
            if span_decoding.has_answer(found[0] if found else None, null_score, threshold) else ""
            for example, found, null_score in zip(part.examples, outputs.candidates, outputs.null_scores)]


def score(setting: Setting, part: Part, outputs: Outputs) -> Results:
    """All numbers of a part with labels; of tasks with questions that have no answer, those of both sorts,
    too, and the threshold that would be best."""
    measure = MEASURES[setting.task.measure]
    right = [[answer.text for answer in example.label or ()] for example in part.examples]
    exact, f1 = answer_scores.scores_of(measure, right, answers_of(setting, part, outputs))
    found: Results = {"eval_exact_match": float(np.mean(exact)), "eval_f1": float(np.mean(f1)),
                      "eval_loss": outputs.loss, "num_examples": len(part.examples)}
    if setting.task.may_be_impossible:
        has_answer = np.array([bool(texts) for texts in right])
        for name, chosen in (("has_answer", has_answer), ("no_answer", ~has_answer)):
            if chosen.any():
                found["eval_exact_match_where_%s" % name] = float(np.mean(np.array(exact)[chosen]))
                found["eval_f1_where_%s" % name] = float(np.mean(np.array(f1)[chosen]))
        best = [example.passage[candidates[0].begin:candidates[0].end] if candidates else ""
                for example, candidates in zip(part.examples, outputs.candidates)]
        _, f1_of_best = answer_scores.scores_of(measure, right, best)
        threshold = answer_scores.best_null_threshold(null_differences(outputs), f1_of_best,
                                                      has_answer.tolist(), best)
        found["best_null_threshold"], found["eval_f1_at_best_null_threshold"] = threshold
    found.update(passage_baselines.scores_of(measure, part.examples, right))
    return found


def null_differences(outputs: Outputs) -> List[float]:
    """The score of no answer minus that of the best one, by question; 0 where there is no other."""
    return [float(null_score - candidates[0].score) if candidates else 0.0
            for candidates, null_score in zip(outputs.candidates, outputs.null_scores)]


def results_line(task: Task, results: Results) -> str:
    """`3219 dev questions: eval_f1 0.6123  eval_exact_match 0.4210  …`."""
    parts = ["%s %.4f" % (name, results[name]) for name in ("eval_f1", "eval_exact_match", "eval_loss")]
    parts += [
        "F1 of %s %.4f" % (text, results["f1_of_" + name]) for name, text in passage_baselines.NAMES.items()
    ]
    if "best_null_threshold" in results:
        parts.append("with --null_score_diff_threshold %.4g eval_f1 would be %.4f"
                     % (results["best_null_threshold"], results["eval_f1_at_best_null_threshold"]))
    return "%d dev questions: %s" % (results["num_examples"], "  ".join(parts))


def write_predictions(folder: str, setting: Setting, part: Part, outputs: Outputs) -> List[str]:
    """Writes the answers by question, in the form that the official scripts read, and the best ones of each
    with their places; returns the paths."""
    ids = [example.id for example in part.examples]
    written = {part.prefix + PREDICTIONS_FILE: dict(zip(ids, answers_of(setting, part, outputs))),
               part.prefix + NBEST_FILE: dict(zip(ids, _nbest(setting, part, outputs)))}
    if part.name == TEST:                      # under the name that CLUE wants
        written["%s_predict.json" % setting.task.name] = written[part.prefix + PREDICTIONS_FILE]
    if setting.task.may_be_impossible:
        written[part.prefix + NULL_FILE] = dict(zip(ids, null_differences(outputs)))
    return write_all(folder, {name: json.dumps(content, ensure_ascii=False, indent=1) + "\n"
                              for name, content in written.items()})


def _nbest(setting: Setting, part: Part, outputs: Outputs) -> Iterator[List[Dict[str, Any]]]:
    """Of each question the best answers, of equal texts the best one; probabilities are a softmax over
    them."""
    for example, candidates, null_score in zip(part.examples, outputs.candidates, outputs.null_scores):
        found: Dict[str, Dict[str, Any]] = {}
        for candidate in candidates:
            text = example.passage[candidate.begin:candidate.end]
            found.setdefault(
                text, {
                    "text": text,
                    "start": candidate.begin,
                    "end": candidate.end,
                    "score": float(candidate.score),
                    "start_logit": float(candidate.start_logit),
                    "end_logit": float(candidate.end_logit)
                })
        if setting.task.may_be_impossible:
            found[""] = {"text": "", "start": 0, "end": 0, "score": float(null_score)}
        entries = sorted(found.values(), key=lambda entry: -entry["score"])
        weights = np.exp([entry["score"] - entries[0]["score"] for entry in entries])
        yield [
            dict(entry, probability=float(weight / weights.sum())) for entry, weight in zip(entries, weights)
        ]


def sections(setting: Setting, part: Part, outputs: Outputs) -> Sequence[Section]:
    """Below the curves: errors by length, the hardest questions."""
    return span_report.sections(MEASURES[setting.task.measure], part.examples,
                                answers_of(setting, part, outputs), outputs.candidates)


SPAN_KIND = Kind(
    read_examples=read_examples,
    check_flags=check_flags,
    narrowed=narrowed,
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
    charts=span_report.CHARTS)
