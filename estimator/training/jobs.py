"""A training job: all in which pretraining and each kind of fine-tuning differ. `run` does the rest."""
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
    """How long a training is; steps are updates."""
    num_train_steps: int
    num_warmup_steps: int
    eval_every: Optional[int] = None           # steps between evaluations; None: at the end alone
    poly_power: float = 1.0                    # of the learning rate's decay


class Evaluation(NamedTuple):
    """What an evaluation found, and what the report shows of it below the curves."""
    results: Results                           # numbers by name; global_step among them
    sections: Sequence[Section] = ()


class Job(NamedTuple):
    """One training, with what comes before and after it.

    Attributes:
      command: such as "estimator.pretrain".
      title: of the report.
      flags: the command's, without gaps.
      device: where it runs.
      folder: what stands beside the checkpoints.
      facts: see `resume.check_training`.
      start: where the output folder stands.
      init_checkpoint: prefix; None for random values.
      schedule: how long it is.
      model_fn: makes the model_fn of the numbers of a training.
      batches: from the number of batches taken to those that come next.
      evaluate: the Estimator at the checkpoint of a prefix; says what it found.
      best_metric: the number that decides which checkpoint is the best.
      charts: of the report.
      before_training: writes what the run keeps beside its checkpoints.
      conclude: as `evaluate`, of the best checkpoint at the end, with files of predictions; None: what counts
        is the newest.
      predict: writes the predictions for data without labels; None: none are wanted.
      next_command: what one would do with the model.
      patience: evaluations without a better one after which the training ends.
      data: the records that are read, to name the one that is damaged; None where none are.
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
    next_command: Optional[str]
    before_training: Callable[[], None] = lambda: None
    conclude: Optional[Callable[[Any, str], Evaluation]] = None
    predict: Optional[Callable[[Any, str], None]] = None
    patience: Optional[int] = None
    data: Optional[PretrainingData] = None

    @property
    def num_batches(self) -> int:
        """Of the whole training, whatever becomes of their updates."""
        return self.schedule.num_train_steps * self.flags.gradient_accumulation_steps

    def training_config(self) -> TrainingConfig:
        """What the graph of the training is told."""
        return training_config(self.flags, self.device, self.schedule,
                               self.start.batches // self.flags.gradient_accumulation_steps,
                               None if self.start.step else self.init_checkpoint)


def training_config(flags: TrainingFlags, device: devices.Device, schedule: Schedule, start_step: int = 0,
                    init_checkpoint: Optional[str] = None) -> TrainingConfig:
    """The numbers of a training as the flags have them."""
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
