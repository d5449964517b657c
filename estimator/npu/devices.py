"""Where a model runs: on an Ascend device, or on what plain TensorFlow finds. The only file that names
npu_bridge.

npu_bridge is imported when the NPU is chosen and never before: importing it changes tf.Session for the whole
process. Arguments are passed by name, since their order differs between its releases, and only if the
installed release has them.
"""
import hashlib
import importlib
import importlib.util
import inspect
import math
import os
from dataclasses import dataclass, replace
from types import ModuleType
from typing import TYPE_CHECKING, Any, Callable, Dict, Mapping, NamedTuple, Optional, Tuple

from estimator.npu import option_table, ranks
from estimator.npu import options as npu_options
from estimator.npu.options import NpuOptions
from estimator.npu.ranks import World
from etl.common.command_line import UserError

if TYPE_CHECKING:
    import tensorflow.compat.v1 as tf

AUTO, NPU, CPU = "auto", "npu", "cpu"
BACKENDS = (AUTO, NPU, CPU)
NPU_LOOP = 100                                 # default steps of a loop
INCREASE_LOSS_SCALE_EVERY = 1000               # updates without an overflow

NO_SUMMARIES = 0                    # the progress hook writes them: it counts steps, not calls of the host
NO_CHECKPOINTS = 0                  # None would mean every 100 steps on the NPU
# a saver's list holds those of the run; checkpoint_files.TidyHook keeps as many as wanted
ALL_CHECKPOINTS = 2 ** 31 - 1

OVERFLOW_CHECK = "enable_overflow_check"       # an argument that not every release has
GELU_OP, DROPOUT_OP = "npu_gelu", "npu_dropout"           # names of the device's kernels in a graph

_PACKAGE = "npu_bridge"
_DEVICE_VARIABLES = ("ASCEND_DEVICE_ID", "DEVICE_ID", "RANK_TABLE_FILE", "CM_CHIEF_IP")
_OTHER_STARTS = ("LOCAL_CHECKPOINT_DIR", "RESTORE_FROM")


@dataclass(frozen=True)
class RunOptions:
    """How an Estimator runs, on any backend.

    Attributes:
      save_checkpoints_steps: steps between checkpoints.
      keep_checkpoint_max: number of newest checkpoints to keep.
      random_seed: of all random numbers in TensorFlow.
      iterations_per_loop: batches that the NPU runs per call from the host.
    """
    save_checkpoints_steps: int
    keep_checkpoint_max: int
    random_seed: int
    iterations_per_loop: int = 1


def is_installed() -> bool:
    """Whether the package of the devices can be found; it is not imported."""
    return importlib.util.find_spec(_PACKAGE) is not None


def choose_backend(requested: str, environment: Mapping[str, str] = os.environ) -> Tuple[str, str]:
    """Decides between "npu" and "cpu", and says why.

    "auto" uses the NPU if npu_bridge can be imported and the environment names a device; otherwise plain
    TensorFlow, which uses a GPU if it sees one.

    Raises UserError when "npu" is requested but not available; there is no silent fallback.
    """
    if requested == CPU:
        return CPU, "requested"
    device = next((name for name in _DEVICE_VARIABLES if environment.get(name)), None)
    if not is_installed():
        if requested == NPU:
            raise UserError(
                "--backend npu: the Python package %s is not installed; it comes with Ascend's CANN"
                % _PACKAGE)
        return CPU, "%s is not installed" % _PACKAGE
    if requested == AUTO and device is None:
        return CPU, "%s is installed, but none of %s is set" % (_PACKAGE, ", ".join(_DEVICE_VARIABLES))
    try:
        _bridge()
    except Exception as error:  # usually its native libraries, for which TensorFlow has its own errors
        if requested == NPU:
            raise UserError("--backend npu: %s is installed, but importing it fails: %s" % (_PACKAGE, error))
        return CPU, "%s is installed, but importing it fails: %s" % (_PACKAGE, error)
    if not environment.get("JOB_ID"):
        raise UserError("--backend npu: the environment variable JOB_ID must be set (any number will do)")
    return NPU, "requested" if requested == NPU else "%s is installed and %s is set" % (_PACKAGE, device)


class Device(NamedTuple):
    """What differs between the backends."""
    name: str = CPU                            # or NPU
    reason: str = "requested"
    world: World = ranks.ALONE
    options: NpuOptions = NpuOptions()

    def __str__(self) -> str:
        where = "%s (%s)" % (self.name, self.reason)
        return where if self.world.size == 1 else "%s, rank %d of %d" % ((where,) + self.world)

    @property
    def on_host(self) -> bool:
        """Whether the host sees every step, and so may check its numbers and time its input."""
        return self.name == CPU

    @property
    def scales_loss(self) -> bool:
        """Whether updates that overflow are skipped."""
        return self.name == NPU and self.options.loss_scale != "none"

    def loop(self, requested: Optional[int], accumulation_steps: int = 1) -> int:
        """Batches per loop: as requested, or NPU_LOOP, in whole updates; 1 on the CPU."""
        if requested is not None:
            return requested
        return 1 if self.name == CPU else max(1, NPU_LOOP // accumulation_steps) * accumulation_steps

    def make_estimator(self, model_fn: Callable[..., Any], model_dir: str,
                       options: RunOptions) -> "tf.estimator.Estimator":
        """A tf.estimator.Estimator, or an NPUEstimator, which has the same methods.

        All ranks read the checkpoints in `model_dir`; only the first one writes any.
        """
        if self.name == CPU:
            return _sessions().make_estimator(model_fn, _run_arguments(model_dir, options))
        if not self.world.is_first:
            options = replace(options, save_checkpoints_steps=NO_CHECKPOINTS)
        _forget_other_starts()
        bridge = _bridge()
        if not ranks.has_chief(os.environ):    # older releases require what newer ones assume
            os.environ["RANK_SIZE"] = os.environ.get("RANK_SIZE") or "1"
        try:
            config = bridge.NPURunConfig(session_config=_sessions().npu_session_config(),
                                         **self.run_arguments(model_dir, options))
            estimator = bridge.NPUEstimator(model_fn=model_fn, model_dir=model_dir, config=config)
        except (TypeError, ValueError) as error:
            raise UserError("--backend npu: the installed npu_bridge refuses what it is given: %s" % error)
        complaints = _sessions().session_complaints(estimator.config.session_config)
        if complaints:
            raise UserError("--backend npu: the installed npu_bridge creates an invalid session: %s"
                            % "; ".join(complaints))
        if config.iterations_per_loop != options.iterations_per_loop:
            raise UserError("--iterations_per_loop is %d, but the installed npu_bridge makes it %d, as where "
                            "AOE tunes, by aoe_mode or the variable AOE_MODE: give that one"
                            % (options.iterations_per_loop, config.iterations_per_loop))
        return estimator

    def run_arguments(self, model_dir: str, options: RunOptions) -> Dict[str, Any]:
        """NPURunConfig's arguments, but for the session's."""
        arguments = npu_options.build(self.options.run_arguments(),
                                      lambda name, inner: getattr(_module("npu_config"), name)(**inner))
        if "insert_op_file" in arguments:      # goes into the session's entry as it is, which takes bytes
            arguments["insert_op_file"] = os.fsencode(arguments["insert_op_file"])
        return dict(arguments, iterations_per_loop=options.iterations_per_loop,
                    **_run_arguments(model_dir, options))

    def training_kernels(self, seed: int) -> Optional[Tuple[Callable[..., Any], Callable[..., Any]]]:
        """(gelu, dropout) of the device, for `modeling.build_encoder`, only for training graphs; None for
        ours.

        A graph that contains them cannot be loaded by stock TensorFlow.
        """
        if self.name == CPU or not self.options.kernels:
            return None
        bridge = _bridge()

        def gelu(x: "tf.Tensor") -> "tf.Tensor":
            return bridge.npu_unary_ops.gelu(features=x, name=GELU_OP)

        def dropout(x: "tf.Tensor", rate: float, place: str) -> "tf.Tensor":
            digest = hashlib.sha256(("%d %d %s" % (seed, self.world.rank, place)).encode("utf-8")).digest()
            return bridge.npu_ops.dropout(x=x, keep_prob=1.0 - rate,
                                          seed=int.from_bytes(digest[:4], "little") >> 1, name=DROPOUT_OP)
        return gelu, dropout

    def loss_scale_manager(self) -> Any:
        """The object whose `get_loss_scale()` is the factor on the loss; None without one."""
        if not self.scales_loss:
            return None
        bridge, first = _bridge(), self.options.first_loss_scale
        if self.options.loss_scale == "fixed":
            unchecked = {} if self.options.overflow_check else {OVERFLOW_CHECK: False}
            return bridge.FixedLossScaleManager(loss_scale=first, **unchecked)
        return bridge.ExponentialUpdateLossScaleManager(
            init_loss_scale=first, incr_every_n_steps=INCREASE_LOSS_SCALE_EVERY,
            decr_ratio=self.options.loss_scale_decrease)

    def wrap(self, optimizer: "tf.train.Optimizer", loss_scale_manager: Any = None) -> "tf.train.Optimizer":
        """Wraps the rule with the sum of gradients over devices, and that with loss scaling.

        Both only see gradients that pass through them: compute_gradients, then apply_gradients.
        """
        if self.name == CPU:
            return optimizer
        bridge, is_distributed = _bridge(), self.world.size > 1
        if self.options.platform.get("is_tailing_optimization"):   # which one wrapper for both wants to know
            return bridge.NPUOptimizer(opt=optimizer, loss_scale_manager=loss_scale_manager,
                                       is_distributed=is_distributed,
                                       is_loss_scale=loss_scale_manager is not None,
                                       is_tailing_optimization=True)
        if is_distributed:
            name = next(iter(_arguments(bridge.NPUDistributedOptimizer)))    # not the same in all releases
            optimizer = bridge.NPUDistributedOptimizer(**{name: optimizer})
        if loss_scale_manager is not None:
            optimizer = bridge.NPULossScaleOptimizer(opt=optimizer, loss_scale_manager=loss_scale_manager,
                                                     is_distributed=is_distributed)
        return optimizer


class PlannedDevice(Device):
    """An NPU without npu_bridge: its loops and steps, but plain TensorFlow's Estimator and optimizers.

    For inspecting a training graph; nothing is trained on it. Plain TensorFlow's kernels take the place of
    the device's, under their names; the session has the entry that an NPUEstimator adds.
    """

    def make_estimator(self, model_fn: Callable[..., Any], model_dir: str,
                       options: RunOptions) -> "tf.estimator.Estimator":
        carried = {name: value for name, value in self.options.run_arguments().items()
                   if name in ("precision_mode", "precision_mode_v2", "modify_mixlist") and value is not None}
        return _sessions().make_estimator(model_fn, _run_arguments(model_dir, options),
                                          _sessions().planned_session_config(carried))

    def training_kernels(self, seed: int) -> Optional[Tuple[Callable[..., Any], Callable[..., Any]]]:
        if not self.options.kernels:
            return None
        return _sessions().planned_kernels(seed, GELU_OP, DROPOUT_OP)

    def loss_scale_manager(self) -> None:
        return None

    def wrap(self, optimizer: "tf.train.Optimizer", loss_scale_manager: Any = None) -> "tf.train.Optimizer":
        return optimizer


def plan_device(options: NpuOptions, iterations_per_loop: Optional[int] = None,
                environment: Mapping[str, str] = os.environ) -> Device:
    """The NPU that a command would get from the options and the environment; a PlannedDevice if npu_bridge is
    not available.

    Raises UserError as `choose_device` does; which options a release lacks is known only if it is installed.
    """
    name, reason = choose_backend(AUTO, dict(environment, ASCEND_DEVICE_ID="0"))
    if name == NPU:
        return choose_device(NPU, options, iterations_per_loop, environment)
    device = PlannedDevice(NPU, "planned: %s" % reason, ranks.read_world(environment), options)
    npu_options.check_options(options, option_table.all_arguments, device.loop(iterations_per_loop))
    return device._replace(options=options.with_own_mixlist(
        option_table.all_arguments(option_table.RUN_CONFIG)))


def choose_device(requested: str, options: NpuOptions, iterations_per_loop: Optional[int] = None,
                  environment: Mapping[str, str] = os.environ) -> Device:
    """The device a command runs on; checks everything that the environment and the options say about it.

    Args:
      requested: one of BACKENDS.
      options: of the NPU; ignored on the CPU.
      iterations_per_loop: as given; None: not given.
      environment: variables.
    """
    name, reason = choose_backend(requested, environment)
    if name == CPU:
        return Device(CPU, reason, options=options)
    device = Device(NPU, reason, ranks.read_world(environment), options)
    bridge = _bridge()
    if ranks.has_chief(environment) and not _counts_by_chief(bridge):
        raise UserError("CM_CHIEF_IP: the installed npu_bridge counts devices by RANK_SIZE alone: give "
                        "RANK_TABLE_FILE, RANK_SIZE and RANK_ID instead")
    npu_options.check_options(options, lambda config: _arguments(getattr(_module("npu_config"), config)),
                              device.loop(iterations_per_loop))
    if not options.overflow_check and OVERFLOW_CHECK not in _arguments(bridge.FixedLossScaleManager):
        raise UserError("--overflow_check false: the installed npu_bridge always looks for overflows")
    return device._replace(options=options.with_own_mixlist(_arguments(bridge.NPURunConfig)))


def check_steps(device: Device, options: RunOptions, flags: Mapping[str, Optional[int]],
                accumulation_steps: int = 1) -> None:
    """Raises UserError if a step count, by its flag's name, is not a whole number of loops.

    A device that runs N batches per call also runs N in its last loop, and saves only between loops.
    """
    loop = options.iterations_per_loop
    if device.name == CPU and loop != 1:
        raise UserError("--iterations_per_loop is %d, but on-device loops exist only on the NPU; on the "
                        "CPU it must be 1" % loop)
    if loop == 1:
        return
    if loop % accumulation_steps:
        raise UserError("--iterations_per_loop counts batches and must be a multiple of "
                        "--gradient_accumulation_steps, which is %d; got %d, try %s"
                        % (accumulation_steps, loop, _nearest(loop, accumulation_steps)))
    updates = loop // accumulation_steps
    for name, steps in flags.items():
        if steps is not None and steps % updates:
            batches = "" if accumulation_steps == 1 else " / --gradient_accumulation_steps"
            raise UserError("--%s must be a multiple of --iterations_per_loop%s, which is %d; got %d, try %s"
                            % (name, batches, updates, steps, _nearest(steps, updates)))


def _run_arguments(model_dir: str, options: RunOptions) -> Dict[str, Any]:
    """The arguments of either backend's RunConfig."""
    return {"model_dir": model_dir, "tf_random_seed": options.random_seed, "save_summary_steps": NO_SUMMARIES,
            "save_checkpoints_steps": options.save_checkpoints_steps, "keep_checkpoint_max": ALL_CHECKPOINTS,
            "log_step_count_steps": None}


def _arguments(function: Callable[..., Any]) -> Dict[str, Any]:
    """Defaults by name, in order."""
    return {name: parameter.default for name, parameter in inspect.signature(function).parameters.items()
            if name != "self"}


def _counts_by_chief(bridge: ModuleType) -> bool:
    """Whether a release knows of devices without RANK_SIZE; one that does not trains each by itself, without
    a word."""
    util = getattr(bridge, "util", None)
    return util is None or hasattr(util, "get_ranksize")


def _nearest(number: int, step: int) -> str:
    """The multiples of `step` on both sides of `number`, except 0: `20 or 25`."""
    below = number // step * step
    return " or ".join(str(value) for value in (below, math.ceil(number / step) * step) if value > 0)


def _sessions() -> ModuleType:
    from estimator.npu import sessions         # TensorFlow takes two seconds, which flags should not
    return sessions


def _bridge() -> ModuleType:
    import npu_bridge.npu_init as bridge  # pylint: disable=import-error
    return bridge


def _module(name: str) -> ModuleType:
    """One of npu_bridge's own, for what its npu_init does not show in every release."""
    return importlib.import_module("%s.estimator.npu.%s" % (_PACKAGE, name))


def _forget_other_starts() -> None:
    """Takes the variables away by which an NPUEstimator would start from another checkpoint than asked
    for."""
    for name in _OTHER_STARTS:
        found = os.environ.pop(name, "")
        if found:
            print("Ignored: %s=%s, from which npu_bridge would start: give --init_checkpoint" % (name, found))
