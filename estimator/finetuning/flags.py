"""The flags of estimator.finetune, and what is derived only from them: presets, defaults, columns, seeds."""
import dataclasses
import os
from dataclasses import dataclass
from typing import Any, Dict, List, Mapping, Optional, Sequence, Tuple

from estimator.data import tasks
from estimator.data.entities import OVERLAPS
from estimator.data.tasks import TASKS, Task
from estimator.finetuning import scores
from estimator.finetuning.presets import PRESETS
from estimator.model.kinds import CHOICES, CLASSES, MULTI_LABEL, SPANS, TAGS
from estimator.training.flags import TrainingFlags
from estimator.weights.model_folder import ON_DEV, Labelling, is_threshold
from etl.common.command_line import FREE, SAME, SAME_CONTENT, UserError, flag

SAMPLE_TASK = "sentence_pair"
CACHE_FOLDER = "encoded"
BALANCED = "balanced"
NO_CHECKPOINT = "none"                         # --init_checkpoint for random values
# Flags that a preset may set, with their defaults.
DEFAULTS = {"task_name": SAMPLE_TASK, "max_seq_length": 128, "train_batch_size": 32, "learning_rate": 5e-5,
            "num_train_epochs": 3.0}
# Of kinds that have others: BERT's for SQuAD, Google's ALBERT's for RACE.
KIND_DEFAULTS: Dict[str, Dict[str, Any]] = {
    CLASSES: {},
    SPANS: {"max_seq_length": 384, "doc_stride": 128, "max_query_length": 64, "max_answer_length": 30,
              "n_best_size": 20},
    CHOICES: {"max_seq_length": 512},
    TAGS: {"doc_stride": 32, "crf": False},
    MULTI_LABEL: {"label_separator": "|", **Labelling()._asdict()}}
# Flags that only tasks of some kinds have.
_OF_SPANS = ("max_query_length", "max_answer_length", "n_best_size", "null_score_diff_threshold",
             "skip_bad_answers")
_OF_TAGS = ("crf", "overlaps", "inclusive_ends")
KIND_FLAGS = {"class_weights": (CLASSES, MULTI_LABEL), "doc_stride": (CLASSES, SPANS, TAGS, MULTI_LABEL),
              "exclusive_candidates": (CHOICES,), **dict.fromkeys(_OF_SPANS, (SPANS,)),
              **dict.fromkeys(_OF_TAGS, (TAGS,)),
              **dict.fromkeys(KIND_DEFAULTS[MULTI_LABEL], (MULTI_LABEL,))}

_SAMPLE = os.path.join(os.path.dirname(os.path.dirname(os.path.abspath(__file__))), "sample")


def _preset_flag(name: str, help_text: str, choices: Optional[Sequence[str]] = None,
                 on_resume: str = SAME) -> Any:
    return flag(None, "%s; default: the preset's, or %s" % (help_text, DEFAULTS[name]), choices,
                on_resume=on_resume)


@dataclass(frozen=True)
class FinetuneConfig(TrainingFlags):
    """The flags of this command."""
    list_tasks: bool = flag(False, "list the tasks with labels, metrics and files, and exit",
                            on_resume=FREE)
    preset: Optional[str] = flag(None, "settings that the authors of released weights published for this "
                                 "task; flags override them", tuple(PRESETS), on_resume=FREE)
    task_name: Optional[str] = _preset_flag("task_name", "task", tuple(TASKS), on_resume=SAME_CONTENT)
    data_dir: Optional[str] = flag(None, "folder of the task's files; default, for sentence_pair: the "
                                   "sample pairs", on_resume=SAME_CONTENT)
    columns: Tuple[str, ...] = flag((), "columns of text_a, text_b and label for sentence_pair, "
                                    "single_sentence and multi_label: role=name of a column or JSON "
                                    "field, or its number from 1 on in files without a header",
                                    on_resume=SAME_CONTENT)
    labels: Tuple[str, ...] = flag((), "their labels, by class index; default: 0 1, or those of the training "
                                   "file if it has neither; of multi_label those of the files",
                                   on_resume=SAME_CONTENT)
    output_dir: str = flag("output/finetune", "folder for checkpoints, event files and results",
                           on_resume=FREE)
    cache_dir: Optional[str] = flag(None, "folder of encoded examples, which several runs may share; "
                                    "default: %s/ in --output_dir" % CACHE_FOLDER, on_resume=FREE)
    init_checkpoint: str = flag("output/pretrain",
                                "checkpoint, or its folder, to start from; none: random values",
                                on_resume=SAME_CONTENT)
    albert_config_file: Optional[str] = flag(
        None, "config by name or file; default: the one beside the checkpoint", on_resume=SAME_CONTENT)
    vocab_file: Optional[str] = flag(None, "vocabulary; default: the one beside the checkpoint",
                                     on_resume=SAME_CONTENT)
    spm_model_file: Optional[str] = flag(None, "SentencePiece model instead of a vocabulary",
                                         on_resume=SAME_CONTENT)
    do_lower_case: Optional[bool] = flag(None, "lower-case and strip accents; default: as the checkpoint "
                                         "was trained", on_resume=SAME_CONTENT)
    max_seq_length: Optional[int] = _preset_flag("max_seq_length",
                                                 "tokens per example; longer ones are truncated",
                                                 on_resume=SAME_CONTENT)
    doc_stride: Optional[int] = flag(
        None, "read longer texts through windows: tasks with one text through such "
        "that begin so many tokens apart, averaging their predictions; passages of "
        "questions, and texts with entities, through such that have so many tokens in common (default: 128 "
        "and 32). "
        "Without training, as the model was trained",
        on_resume=SAME_CONTENT)
    max_query_length: Optional[int] = flag(
        None, "tokens of a question on a passage; longer ones are cut (default: "
        "64)",
        on_resume=SAME_CONTENT)
    max_answer_length: Optional[int] = flag(None,
                                            "tokens of an answer that is a part of a passage (default: the "
                                            "preset's, else 30)",
                                            on_resume=FREE)
    n_best_size: Optional[int] = flag(
        None, "answers of a question that nbest_predictions.json holds (default: 20)", on_resume=FREE)
    null_score_diff_threshold: Optional[float] = flag(
        None,
        "give no answer where the score of none is higher than the best answer's by more than this; tasks "
        "whose passages may hold no answer (default: 0)",
        on_resume=FREE)
    skip_bad_answers: bool = flag(False,
                                  "leave out, and count, answers to be learned that their passage does not "
                                  "hold at their offset",
                                  on_resume=SAME_CONTENT)
    exclusive_candidates: bool = flag(False,
                                      "let questions that share their candidates, as the blanks of chid do, "
                                      "take each of them once at most, the likeliest first",
                                      on_resume=FREE)
    crf: Optional[bool] = flag(
        None, "entities: learn which tag follows which, too, in a CRF, instead of ruling out what cannot "
        "follow alone (default: false). Without training, as the model was trained",
        on_resume=SAME_CONTENT)
    overlaps: Optional[str] = flag(
        None,
        "entities: of several that overlap keep the one that begins first, or the longest, and count the "
        "others (default: the preset's, else such data are refused)",
        OVERLAPS,
        on_resume=SAME_CONTENT)
    inclusive_ends: bool = flag(False,
                                "entities: `end` in lists of start, end and label is the place of the last "
                                "character, not that behind it",
                                on_resume=SAME_CONTENT)
    label_separator: Optional[str] = flag(
        None, "several labels: what stands between them in a column (default: |)", on_resume=SAME_CONTENT)
    label_threshold: Optional[str] = flag(
        None, "several labels: give those whose probability is at least this, or, with %s, at least what "
        "gives each label its highest F1 on the dev examples (default: 0.5). Without training, as the "
        "model was trained" % ON_DEV,
        on_resume=SAME)
    pad_to_max_length: Optional[bool] = flag(None, "pad all batches to --max_seq_length instead of their "
                                             "longest row; default: only on the NPU, which needs it")
    do_predict: bool = flag(False, "predict the test file", on_resume=FREE)
    train_batch_size: Optional[int] = _preset_flag("train_batch_size", "examples per batch")
    eval_batch_size: int = flag(8, "examples per evaluation step", on_resume=FREE)
    predict_batch_size: int = flag(8, "examples per prediction step", on_resume=FREE)
    learning_rate: Optional[float] = _preset_flag("learning_rate", "highest learning rate")
    num_train_epochs: Optional[float] = _preset_flag("num_train_epochs",
                                                     "passes over the training examples")
    warmup_proportion: float = flag(0.1, "share of the steps in which the learning rate rises")
    class_weights: Tuple[str, ...] = flag((), "weight of each class in the training loss, by class index; or "
                                          "%s: in inverse proportion to its frequency. Of several labels, of "
                                          "the loss of the examples that have the label; balanced: examples "
                                          "without it by examples with it" % BALANCED)
    eval_every: Optional[int] = flag(None, "steps between evaluations while training; default: an epoch",
                                     on_resume=FREE)
    best_metric: Optional[str] = flag(None, "evaluation metric that selects the checkpoint kept in best/; "
                                      "default: the task's", scores.METRICS, on_resume=FREE)
    early_stopping: Optional[int] = flag(
        None, "stop training after so many evaluations without improvement", on_resume=FREE)
    seeds: Optional[str] = flag(None, "train once for each of these seeds, such as 1,2,3, in separate "
                                "folders under --output_dir, and report means and deviations", on_resume=FREE)

    def __post_init__(self) -> None:
        if self.preset:
            self._fill_in(PRESETS[self.preset]._asdict())
        if self.do_train and self.task_name:   # else the model's folder says task and length
            self._fill_in(KIND_DEFAULTS[TASKS[self.task_name].kind])
        self._fill_in({name: DEFAULTS[name]
                       for name in ("train_batch_size", "learning_rate", "num_train_epochs")})
        super().__post_init__()
        if self.do_train:
            self._fill_in(DEFAULTS)
        self.require_at_least_1("max_seq_length", "train_batch_size", "eval_batch_size", "predict_batch_size",
                                "doc_stride", "eval_every", "early_stopping", "max_query_length",
                                "max_answer_length", "n_best_size")
        threshold = self.null_score_diff_threshold
        if threshold is not None and not abs(threshold) < float("inf"):
            raise ValueError("null_score_diff_threshold must be a number, got %s" % threshold)
        if self.label_threshold is not None and not is_threshold(self.label_threshold):
            raise ValueError("label_threshold must be %s or a number in (0, 1), got %s"
                             % (ON_DEV, self.label_threshold))
        if not self.num_train_epochs > 0:
            raise ValueError("num_train_epochs must be above 0, got %s" % self.num_train_epochs)
        if not 0 <= self.warmup_proportion <= 1:
            raise ValueError("warmup_proportion must be in [0, 1], got %s" % self.warmup_proportion)
        if not (self.do_train or self.do_eval or self.do_predict):
            raise ValueError("do_train, do_eval and do_predict are all false: nothing to do")
        for name in ("early_stopping", "seeds", "eval_every"):
            if getattr(self, name) and not self.do_eval:
                raise ValueError("%s is %s, but do_eval is false" % (name, getattr(self, name)))
        if len(set(self.seed_list())) != len(self.seed_list()):
            raise ValueError("seeds must all be different, got %s" % self.seeds)
        self.columns_by_role()
        if (self.columns or self.labels) and self.task_name not in (None,) + tasks.GENERIC:
            raise ValueError("columns and labels are for %s; %s has its own"
                             % (", ".join(tasks.GENERIC), self.task_name))
        if len(set(self.labels)) != len(self.labels) or len(self.labels) == 1:
            raise ValueError("labels must be at least two, all different, got %s" % ", ".join(self.labels))
        if self.data_dir is None and not self.list_tasks:
            if self.task_name not in (None, SAMPLE_TASK):
                raise ValueError("data_dir must name the folder of %s; only %s has sample data"
                                 % (self.task_name, SAMPLE_TASK))
            object.__setattr__(self, "data_dir", _SAMPLE)

    def _fill_in(self, values: Mapping[str, Any]) -> None:
        for name, value in values.items():
            if getattr(self, name, value) is None:
                object.__setattr__(self, name, value)

    def check_task(self, task: Task, metrics: Sequence[str]) -> None:
        """Raises UserError for flags that tasks of its kind do not have, and for a --best_metric that is none
        of `metrics`."""
        for name, kinds in KIND_FLAGS.items():
            value = getattr(self, name)
            if task.kind not in kinds and value not in (None, False, ()):
                having = [other.name for other in TASKS.values() if other.kind in kinds]
                raise UserError("--%s is for tasks such as %s; %s has no use for it"
                                % (name, ", ".join(having[:3]), task.name))
        if self.best_metric and self.best_metric not in metrics:
            raise UserError("--best_metric: task %s has no %s" % (task.name, self.best_metric))

    def with_defaults_of(self, kind: str) -> "FinetuneConfig":
        """The same with the defaults of a kind where neither flags nor the model's folder say more."""
        return dataclasses.replace(self, **{name: value for name, value in KIND_DEFAULTS[kind].items()
                                            if getattr(self, name) is None})

    def seed_list(self) -> List[int]:
        """--seeds as numbers. Raises ValueError if they are not."""
        try:
            return [int(seed) for seed in self.seeds.split(",")] if self.seeds else []
        except ValueError:
            raise ValueError("seeds must be integers separated by commas, got %s" % self.seeds)

    def columns_by_role(self) -> Dict[str, str]:
        """--columns as {role: name}. Raises ValueError unless they are the columns of a task."""
        found = dict(item.partition("=")[::2] for item in self.columns)
        wanted = {"text_a", "label"} | ({"text_b"} if self.task_name in (None, "sentence_pair") else set())
        if self.columns and (set(found) != wanted or not all(found.values())):
            raise ValueError("columns must be %s, got %s"
                             % (" ".join("%s=…" % name for name in sorted(wanted)),
                                " ".join(self.columns)))
        return found
