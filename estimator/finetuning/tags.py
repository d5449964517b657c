"""The entities of a text of any length: a tag for each token."""
import dataclasses
from typing import Any, Dict, List, Mapping, NamedTuple, Optional, Sequence, Tuple

import numpy as np
import tensorflow.compat.v1 as tf

from albert_config import AlbertConfig
from estimator.data import entities, tasks
from estimator.data.entities import Entity, TaggedText
from estimator.data.rows import Rows, RowsConfig, rows_of_windows
from estimator.data.tasks import TEST, TRAIN, Task
from estimator.finetuning import entity_baselines, entity_scores, tag_decoding, tag_report
from estimator.finetuning.flags import FinetuneConfig
from estimator.finetuning.kind import Kind, Setting
from estimator.finetuning.predictions import (
    PREDICTIONS_FILE,
    Part,
    collect,
    exact,
    json_lines,
    submission_name,
    write_all,
)
from estimator.finetuning.tag_decoding import Moves, Tagged
from estimator.model import heads, modeling
from estimator.model.kernels import Dropout
from estimator.model.kinds import TAGS
from estimator.training import model_fn
from estimator.training.jobs import Results
from estimator.training.model_fn import Found, ModelFn, TrainingConfig
from estimator.weights.model_folder import ModelFolder, Tagging
from etl.common.command_line import UserError
from etl.reports.page import Section
from etl.text.tokenization import load_tokenizer
from etl.text.windows import Window, check_windows, join_windows, pack_windows, pieces_of

METRICS = ("f1", "macro_f1", "loss")


class Outputs(NamedTuple):
    """What a model says of the texts of a part. found: the entities of each, ascending; loss: mean over the
    tokens of all windows."""
    found: List[List[Tagged]]
    loss: float


def read_examples(config: FinetuneConfig, task: Task, part: str) -> List[TaggedText]:
    """The texts of a part."""
    path, _ = tasks.find_labelled_file(task, str(config.data_dir), part)
    return entities.read_entities(
        path, part.startswith(TEST), task.labels, config.overlaps, config.inclusive_ends
    )


def check_flags(config: FinetuneConfig, task: Task, examples: Dict[str, List[TaggedText]]) -> None:
    """Raises UserError for flags that do not fit the task."""
    config.check_task(task, METRICS)
    try:
        check_windows(config.max_seq_length or 0, config.doc_stride or 0, 0, False)
    except ValueError as error:
        raise UserError("--%s" % error)


def narrowed(task: Task, examples: Dict[str, List[TaggedText]]) -> Task:
    """A task without labels of its own has those of its files, in the order in which they come, the training
    file's first; prints them."""
    if task.labels:
        return task
    found = entities.found_labels([example for part in examples.values() for example in part])
    if not found:
        raise UserError("task %s: there is no entity in the files of %s" % (task.name, ", ".join(examples)))
    print("Labels found: %s" % ", ".join(found))
    return dataclasses.replace(task, labels=tuple(found))


def describe(config: FinetuneConfig, task: Task) -> Dict[str, Any]:
    """What the model's folder says of it."""
    return {"kind": TAGS, "labels": task.labels, "tagging": Tagging(config.doc_stride or 0, bool(config.crf))}


def rows_config_of(config: FinetuneConfig, folder: ModelFolder) -> RowsConfig:
    return RowsConfig(folder.tokenizer, folder.max_seq_length, config.doc_stride, folder.labels, kind=TAGS)


def make_rows(examples: Sequence[TaggedText], rows_config: RowsConfig) -> Rows:
    """A row for each window of each text; label_ids are its tokens' tags + 1, 0 at [CLS] and [SEP]."""
    tokenizer = load_tokenizer(rows_config.tokenizer)
    windows: List[Window] = []
    numbers: List[int] = []
    labels: List[np.ndarray] = []
    for number, example in enumerate(examples):
        pieces = pieces_of(tokenizer, example.text)
        tags = tag_decoding.tags_of(example.label or (), pieces.spans, rows_config.labels)
        for window in pack_windows(tokenizer, None, pieces, rows_config.max_seq_length,
                                   rows_config.doc_stride or 0, 0):
            inside = tags[window.first_piece:window.first_piece + len(window.input_ids) - 2]
            windows.append(window)
            numbers.append(number)
            labels.append(np.pad(inside + 1, 1, mode="constant"))
    return rows_of_windows(windows, numbers, np.concatenate(labels).astype(np.int32))


def tell_rows(setting: Setting, part: Part) -> None:
    """Says how many windows there are, and how many entities the best of models cannot find."""
    tokenizer, labels = load_tokenizer(setting.folder.tokenizer), setting.task.labels
    known = [example for example in part.examples if example.label]
    count = sum(len(example.label) for example in known)
    found = sum(tag_decoding.can_be_found(example.label, pieces_of(tokenizer, example.text).spans, labels)
                for example in known)
    lost = "; %d begin or end inside a token, and cannot be found" % (count - found) if count > found else ""
    print("%s: %d windows of %d texts with %d entities%s"
          % (part.name, len(part.rows.lengths), len(part.examples), count, lost))


def make_model_fn(setting: Setting, numbers: TrainingConfig) -> ModelFn:
    """Scores of all tags for each token."""
    def head(config: AlbertConfig, encoder_output: modeling.EncoderOutput, features: Mapping[str, tf.Tensor],
             dropout: Optional[Dropout]) -> Found:
        found = heads.tags(config, encoder_output, len(setting.task.labels), features["label_ids"], dropout,
                           bool(setting.config.crf))
        return Found(found.loss, {}, {"logits": found.logits, "loss": found.per_example_loss})
    return model_fn.finetuning_model_fn(setting.folder.config, numbers, head, reads_all=True)


def run_model(setting: Setting, estimator: Any, part: Part, batch_size: int, checkpoint: str) -> Outputs:
    """Each text is decoded when the last of its windows has come: of each token those scores count of the
    window that shows most around it."""
    rows, size, overlap = part.rows, setting.folder.max_seq_length - 2, setting.config.doc_stride or 0
    moves = moves_of(setting.folder, checkpoint)
    lengths, first_rows, rows_of_examples = rows.lengths, rows.first_rows, rows.rows_of_examples
    waiting: Dict[int, Dict[int, np.ndarray]] = {}  # scores by row, by text
    found: List[List[Tagged]] = [[] for _ in part.examples]
    losses = 0.0
    for numbers, batch in collect(estimator, rows, batch_size, setting.seq_length, checkpoint):
        losses += float(batch["loss"].sum(dtype=np.float64))
        complete: Dict[int, Tuple[np.ndarray, np.ndarray]] = {}
        for row, logits in zip(numbers, batch["logits"]):
            example = int(rows.example_numbers[row])
            windows = waiting.setdefault(example, {})
            windows[row] = logits[1:lengths[row] - 1]
            if len(windows) == rows_of_examples[example]:
                of_text = range(first_rows[example], first_rows[example] + len(windows))
                spans = [rows.spans[rows.starts[place] + 1:rows.starts[place + 1] - 1] for place in of_text]
                complete[example] = (join_windows([windows[place] for place in of_text], size, overlap),
                                     join_windows(spans, size, overlap))
                del waiting[example]
        for example, tagged in zip(complete, tag_decoding.decoded(list(complete.values()), moves,
                                                                  setting.task.labels)):
            found[example] = tagged
    num_tokens = max(1, int((lengths - 2).sum()))
    return Outputs(found, losses / num_tokens)


def moves_of(model: ModelFolder, checkpoint: str) -> Moves:
    """What may follow what, and how gladly where the checkpoint has learned it."""
    assert model.tagging is not None
    learned = tf.train.load_variable(checkpoint, heads.TRANSITIONS) if model.tagging.crf else None
    return tag_decoding.moves_of(len(model.labels), learned)


def entities_found(outputs: Outputs) -> List[List[Entity]]:
    return [[tagged.entity for tagged in of_text] for of_text in outputs.found]


def score(setting: Setting, part: Part, outputs: Outputs) -> Results:
    """All numbers of a part with labels and, where the training texts are known, those of a dictionary of
    their entities."""
    gold, labels = [example.label or () for example in part.examples], setting.task.labels
    results: Results = dict(entity_scores.results_of(gold, entities_found(outputs), labels),
                            eval_loss=outputs.loss, num_examples=len(part.examples))
    if TRAIN in setting.parts:
        dictionary = entity_baselines.dictionary_of(setting.parts[TRAIN].examples)
        looked_up = [entity_baselines.look_up(dictionary, example.text) for example in part.examples]
        of_dictionary = entity_scores.results_of(gold, looked_up, labels)
        results.update({name + "_of_dictionary": of_dictionary["eval_" + name]
                        for name in ("precision", "recall", "f1", "macro_f1")})
    return results


def results_line(task: Task, results: Results) -> str:
    """`1343 dev texts with 3072 entities: eval_f1 0.6123  eval_precision 0.6210  …`."""
    parts = ["%s %.4f" % (name, results[name])
             for name in ("eval_f1", "eval_precision", "eval_recall", "eval_macro_f1", "eval_loss")]
    if "f1_of_dictionary" in results:
        parts.append("F1 of a dictionary of the training entities %.4f" % results["f1_of_dictionary"])
    return "%d dev texts with %d entities: %s" % (results["num_examples"], results["num_entities"],
                                                   "  ".join(parts))


def write_predictions(folder: str, setting: Setting, part: Part, outputs: Outputs) -> List[str]:
    """Writes an object for each text and, for test parts of a task with a submission, CLUENER's form of it;
    returns the paths."""
    lines = [{"id": number if example.id is None else example.id, "text": example.text,
              "gold": example.label and [_shown(entity, example.text) for entity in example.label],
              "predicted": [dict(_shown(entity, example.text), score=float(exact(value)))
                            for entity, value in of_text]}
             for number, (example, of_text) in enumerate(zip(part.examples, outputs.found))]
    written = {part.prefix + PREDICTIONS_FILE: json_lines(lines)}
    if part.name.startswith(TEST) and setting.task.submission:
        written[submission_name(setting.task, part)] = json_lines([
            {"id": line["id"], "label": by_mention(example.text, of_text)}
            for line, example, of_text in zip(lines, part.examples, entities_found(outputs))])
    return write_all(folder, written)


def by_mention(text: str, found: Sequence[Entity]) -> Dict[str, Dict[str, List[List[int]]]]:
    """CLUENER's form: `{"name": {"叶老桂": [[9, 11]]}}`, the last character being inside."""
    label: Dict[str, Dict[str, List[List[int]]]] = {}
    for entity in found:
        mentions = label.setdefault(entity.label, {})
        mentions.setdefault(text[entity.start:entity.end], []).append([entity.start, entity.end - 1])
    return label


def _shown(entity: Entity, text: str) -> Dict[str, Any]:
    return dict(entity._asdict(), text=text[entity.start:entity.end])


def sections(setting: Setting, part: Part, outputs: Outputs) -> Sequence[Section]:
    """Below the curves: F1 by label, confused labels, examples of each kind of error."""
    return tag_report.sections(part.examples, entities_found(outputs), setting.task.labels)


TAG_KIND = Kind(
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
    charts=tag_report.CHARTS,
)
