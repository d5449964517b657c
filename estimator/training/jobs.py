"""A training job: everything in which pretraining and kinds of fine-tuning differ. `run` does the rest."""
from typing import Any, Callable, Dict, Mapping, NamedTuple, Optional, Sequence, Tuple

from estimator.data.input_fn import InputFn
from estimator.data.records import PretrainingData
from estimator.npu import devices
from estimator.optimization import schedules
from estimator.training.curves import Chart
from estimator.training.flags import TrainingFlags
from estimator.training.model_fn import ModelFn, TrainingConfig
from estimator.training.resume import Position
from estimator.weights.model_folder import ModelFolder
from etl.reports.page import Section

Results = Dict[str, Any]


class Schedule(NamedTuple):
    """The length of a training run; steps are updates."""
    num_train_steps: int
    num_warmup_steps: int
    eval_every: Optional[int] = None           # steps between evaluations; None: only at the end
    poly_power: float = 1.0                    # of the learning rate's decay


class Evaluation(NamedTuple):
    """The results of an evaluation, and the report's sections about it."""
    results: Results                           # metrics by name, with global_step
    sections: Sequence[Section] = ()


class Job(NamedTuple):
    """One training run, with the steps before and after it.

    Attributes:
      command: such as "estimator.pretrain".
      title: of the report.
      flags: the command's, with all defaults filled in.
      device: where it runs.
      folder: the files beside the checkpoints.
      facts: see `resume.check_training`.
      start: the progress of the output folder.
      init_checkpoint: prefix; None for random values.
      schedule: its length.
      model_fn: creates the model_fn from the numbers of a training run.
      batches: maps the number of batches taken to the following ones.
      evaluate: evaluates the Estimator at the checkpoint of a prefix.
      best_metric: the metric that selects the best checkpoint.
      charts: of the report.
      before_training: writes the files that the run keeps beside its checkpoints.
      conclude: like `evaluate`, for the best checkpoint at the end, with prediction files; None: the newest
        counts.
      predict: writes the predictions for data without labels; None: none are requested.
      next_command: the command to run next.
      patience: evaluations without improvement after which training stops.
      data: the records being read, to name a damaged one; None if there are none.
    """
    command: str
    title: str
    flags: TrainingFlags
    device: devices.Device
    folder: ModelFolder
    facts: Mapping[str, str]
    start: Position
    init_checkpoint: Optional[str]
    schedule: Schedule
    model_fn: Callable[[TrainingConfig], ModelFn]
    batches: Callable[[int], InputFn]
    evaluate: Callable[[Any, str], Evaluation]
    best_metric: str
    charts: Tuple[Chart, ...]
    next_command: str
    before_training: Callable[[], None] = lambda: None
    conclude: Optional[Callable[[Any, str], Evaluation]] = None
    predict: Optional[Callable[[Any, str], None]] = None
    patience: Optional[int] = None
    data: Optional[PretrainingData] = None

    @property
    def num_batches(self) -> int:
        """Batches of the whole training run, also those whose updates overflow."""
        return self.schedule.num_train_steps * self.flags.gradient_accumulation_steps

    def training_config(self) -> TrainingConfig:
        """The settings of the training graph."""
        return training_config(self.flags, self.device, self.schedule,
                               self.start.batches // self.flags.gradient_accumulation_steps,
                               None if self.start.step else self.init_checkpoint)


def training_config(flags: TrainingFlags, device: devices.Device, schedule: Schedule, start_step: int = 0,
                    init_checkpoint: Optional[str] = None) -> TrainingConfig:
    """The numbers of a training run, from the flags."""
    rate, accumulation = flags.learning_rate, flags.gradient_accumulation_steps
    if flags.scale_lr_by_batch:
        records = flags.train_batch_size * device.world.size * accumulation
        rate = schedules.scaled_learning_rate(rate, records, flags.scale_lr_by_batch)
        print("--scale_lr_by_batch %d: the highest learning rate is %g" % (flags.scale_lr_by_batch, rate))
    return TrainingConfig(
        optimizer=flags.optimizer, learning_rate=rate, num_train_steps=schedule.num_train_steps,
        num_warmup_steps=schedule.num_warmup_steps, random_seed=flags.random_seed,
        poly_power=schedule.poly_power,
        lr_schedule=flags.lr_schedule, layer_decay=flags.layer_decay, accumulation_steps=accumulation,
        init_checkpoint=init_checkpoint, log_steps=flags.log_steps, start_step=start_step,
        iterations_per_loop=flags.iterations_per_loop or 1, keep_checkpoint_max=flags.keep_checkpoint_max,
        device=device, peak_flops=flags.device_peak_tflops and flags.device_peak_tflops * 1e12)
