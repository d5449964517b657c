"""The flags shared by both trainers, and what is derived only from them."""
import dataclasses
from dataclasses import dataclass
from typing import Optional, Tuple, TypeVar

from estimator.npu import devices
from estimator.npu import options as npu_options
from estimator.npu.options import NpuOptions
from estimator.optimization.names import ADAMW, LINEAR_AFTER_WARMUP, LR_SCHEDULES, OPTIMIZERS
from etl.common.command_line import FIXED, FREE, NPU_ALONE, flag, names_of

Flags = TypeVar("Flags", bound="TrainingFlags")


@dataclass(frozen=True)
class TrainingFlags:
    """How a model is trained, for any task. A command's own dataclass adds its flags and may set other
    defaults."""
    output_dir: str = flag("output", "folder for checkpoints, event files and results", on_resume=FREE)
    do_train: Optional[bool] = flag(None, "train; default: true, unless another do_ flag is true",
                                    on_resume=FREE)
    do_eval: Optional[bool] = flag(None, "evaluate; default: true, unless another do_ flag is true",
                                   on_resume=FREE)
    train_batch_size: Optional[int] = flag(32, "records per batch")
    optimizer: str = flag(ADAMW, "update rule", OPTIMIZERS, on_resume=FIXED)
    learning_rate: float = flag(5e-5, "highest learning rate")
    lr_schedule: str = flag(LINEAR_AFTER_WARMUP, "decay; reference: from step 0 on, as in the older tools, "
                            "with a jump at the end of the warm-up", LR_SCHEDULES)
    layer_decay: float = flag(1.0, "factor on the learning rate for each layer further from the heads")
    scale_lr_by_batch: Optional[int] = flag(
        None, "batch that --learning_rate was tuned for: the rate is multiplied by the square root of the "
        "records of an update over it")
    gradient_accumulation_steps: int = flag(
        1, "batches per update; the mean of their gradients is applied, and a step is an update")
    save_checkpoints_steps: int = flag(1000, "steps between checkpoints", on_resume=FREE)
    keep_checkpoint_max: int = flag(5, "number of newest checkpoints to keep; 0: all", on_resume=FREE)
    iterations_per_loop: Optional[int] = flag(
        None, "batches the NPU runs per call from the host; default there: 100", on_resume=FREE)
    log_steps: int = flag(100, "steps between progress lines and points of the curves", on_resume=FREE)
    device_peak_tflops: Optional[float] = flag(None, "peak of a device's matrix products in 10^12 operations "
                                               "per second, such as 256 for an Ascend 910 in "
                                               "float16; the log then shows the utilization", on_resume=FREE)
    random_seed: int = flag(12345, "seed of initial values, data order and dropout")
    allow_changes: bool = flag(
        False, "continue in --output_dir although flags or data differ from the previous run", on_resume=FREE)
    backend: str = flag(devices.AUTO, "where to run; auto: on an NPU if there is one, otherwise on "
                        "the CPU or a GPU", devices.BACKENDS, on_resume=FREE)
    precision_mode: Optional[str] = flag(None, "NPU: what is computed in float16; default: %s"
                                         % npu_options.DEFAULT_PRECISION_MODE, npu_options.PRECISION_MODES,
                                         works_on=NPU_ALONE)
    modify_mixlist: Optional[str] = flag(
        None, "NPU: JSON file of ops that mixed precision treats differently", works_on=NPU_ALONE)
    loss_scale: str = flag(
        "none", "NPU: factor on the loss, for float16's range; an update that overflows is skipped",
        npu_options.LOSS_SCALES, on_resume=FIXED, works_on=NPU_ALONE)
    loss_scale_value: Optional[float] = flag(
        None, "NPU: the fixed factor, or the dynamic one's initial value; default: %g or %g"
        % (npu_options.FIXED_LOSS_SCALE, npu_options.DYNAMIC_LOSS_SCALE))
    loss_scale_decrease: float = flag(0.5, "NPU: what a dynamic loss scale is multiplied by where updates "
                                      "overflow; a power of two changes no digit of a gradient")
    overflow_check: bool = flag(True, "NPU: look for overflows; false, with a fixed loss scale, applies "
                                "every update")
    npu_kernels: bool = flag(True, "NPU: train with its own gelu and dropout; false: with ours, whose "
                             "dropout is the same in a resumed run")
    npu_options: Optional[str] = flag(None, "NPU: JSON file with further arguments of NPURunConfig",
                                      on_resume=FREE, works_on=NPU_ALONE)

    def __post_init__(self) -> None:
        wanted = not any(getattr(self, name, None) for name in ("do_train", "do_eval", "do_predict"))
        for name in ("do_train", "do_eval"):
            if getattr(self, name) is None:
                object.__setattr__(self, name, wanted)
        self.require_at_least_1("gradient_accumulation_steps", "save_checkpoints_steps",
                                "iterations_per_loop", "log_steps", "scale_lr_by_batch")
        if self.keep_checkpoint_max < 0:
            raise ValueError("keep_checkpoint_max must be at least 0, got %d" % self.keep_checkpoint_max)
        if self.loss_scale_value is not None and self.loss_scale == "none":
            raise ValueError("loss_scale_value is %g, but loss_scale is none" % self.loss_scale_value)
        if self.loss_scale_value is not None and self.loss_scale_value < 1:
            raise ValueError("loss_scale_value must be at least 1, got %g" % self.loss_scale_value)
        if not 0 < self.loss_scale_decrease < 1:
            raise ValueError("loss_scale_decrease must be between 0 and 1, got %g" % self.loss_scale_decrease)
        if not self.overflow_check and self.loss_scale != "fixed":
            raise ValueError("overflow_check is false, but loss_scale is %s, not fixed" % self.loss_scale)
        if self.device_peak_tflops is not None and not self.device_peak_tflops > 0:
            raise ValueError("device_peak_tflops must be above 0, got %s" % self.device_peak_tflops)
        if not self.learning_rate > 0:
            raise ValueError("learning_rate must be above 0, got %s" % self.learning_rate)
        if not 0 < self.layer_decay <= 1:
            raise ValueError("layer_decay must be in (0, 1], got %s" % self.layer_decay)

    def require_at_least_1(self, *names: str) -> None:
        """Raises ValueError for a flag that is set and below 1."""
        for name in names:
            value = getattr(self, name)
            if value is not None and value < 1:
                raise ValueError("%s must be at least 1, got %s" % (name, value))

    def device_options(self) -> NpuOptions:
        """The options of an NPU. Raises UserError for an invalid options file."""
        return NpuOptions(self.precision_mode, self.modify_mixlist, self.loss_scale, self.loss_scale_value,
                          self.npu_kernels, npu_options.read_platform_options(self.npu_options),
                          self.gradient_accumulation_steps, self.loss_scale_decrease, self.overflow_check)

    def choose_device(self) -> devices.Device:
        """The device, from the flags and the environment. Raises UserError for flags that do not fit it."""
        device = devices.choose_device(self.backend, self.device_options(), self.iterations_per_loop)
        ignored = [name for name in names_of(self, works_on=NPU_ALONE)
                   if getattr(self, name) not in (None, "none")]
        if device.name == devices.CPU and ignored:
            print("Ignored on the CPU: %s" % " ".join("--" + name for name in ignored))
        return device

    def on_device(self: Flags) -> Tuple[devices.Device, Flags]:
        """The device, and the same flags with its iterations_per_loop if none was given."""
        if not self.do_train:                  # nothing runs in loops
            self = dataclasses.replace(self, iterations_per_loop=1)
        device = self.choose_device()
        loop = device.loop(self.iterations_per_loop, self.gradient_accumulation_steps)
        return device, dataclasses.replace(self, iterations_per_loop=loop)

    @property
    def updates_per_loop(self) -> int:
        """Updates per call from the host."""
        return max(1, (self.iterations_per_loop or 1) // self.gradient_accumulation_steps)

    def run_options(self) -> devices.RunOptions:
        return devices.RunOptions(self.save_checkpoints_steps, self.keep_checkpoint_max, self.random_seed,
                                  self.iterations_per_loop or 1)

    def check_steps(self, device: devices.Device, *names: str) -> None:
        """Raises UserError if one of these step counts is not a multiple of the loop."""
        devices.check_steps(device, self.run_options(), {name: getattr(self, name) for name in names},
                            self.gradient_accumulation_steps)
