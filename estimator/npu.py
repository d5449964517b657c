"""Where a model runs: an Ascend device or this machine's CPU. The only file that names npu_bridge.

npu_bridge is imported when the NPU is chosen and never before: importing it changes tf.Session for the whole process.
Its arguments go by name, since their order differs between its releases.
"""
import importlib.util
import os
from dataclasses import dataclass
from typing import Any, Callable, Dict, Mapping, Optional, Tuple

from etl.command_line import UserError

AUTO, NPU, CPU = "auto", "npu", "cpu"
BACKENDS = (AUTO, NPU, CPU)
PRECISION_MODE = "allow_mix_precision"         # products in float16, the rest in float32; known to every release

NO_SUMMARIES = 0                               # the progress hook writes them: it counts steps, not calls of the host

_PACKAGE = "npu_bridge"
_DEVICE_VARIABLES = ("ASCEND_DEVICE_ID", "DEVICE_ID", "RANK_TABLE_FILE")


@dataclass(frozen=True)
class RunOptions:
    """How an Estimator runs, whatever the backend.

    Attributes:
      save_checkpoints_steps: steps between checkpoints.
      keep_checkpoint_max: newest checkpoints that are kept.
      random_seed: of everything that TensorFlow draws.
      iterations_per_loop: steps that the NPU runs on its own between two calls of the host.
    """
    save_checkpoints_steps: int
    keep_checkpoint_max: int
    random_seed: int
    iterations_per_loop: int = 1


def choose_backend(requested: str, environment: Mapping[str, str] = os.environ) -> Tuple[str, str]:
    """Decides between "npu" and "cpu", and says why.

    "auto" takes the NPU when npu_bridge is installed and the environment names a device.

    Raises UserError when "npu" is asked for and cannot be had; there is no silent fallback.
    """
    installed = importlib.util.find_spec(_PACKAGE) is not None
    device = next((name for name in _DEVICE_VARIABLES if environment.get(name)), None)
    if requested == CPU:
        return CPU, "asked for"
    if requested == NPU:
        if not installed:
            raise UserError("--backend npu: the Python package %s is not installed; it comes with Ascend's CANN"
                            % _PACKAGE)
        if not environment.get("JOB_ID"):
            raise UserError("--backend npu: the environment variable JOB_ID must be set (any number will do)")
        return NPU, "asked for"
    if not installed:
        return CPU, "%s is not installed" % _PACKAGE
    if device is None:
        return CPU, "%s is installed, but none of %s is set" % (_PACKAGE, ", ".join(_DEVICE_VARIABLES))
    return choose_backend(NPU, environment)[0], "%s is installed and %s is set" % (_PACKAGE, device)


def check_steps(backend: str, options: RunOptions, flags: Mapping[str, Optional[int]]) -> None:
    """Raises UserError when a number of steps, by its flag's name, does not end with a whole loop.

    A device that runs N steps on its own runs N in its last loop, too, and saves only between loops.
    """
    loop = options.iterations_per_loop
    if backend == CPU and loop != 1:
        raise UserError("--iterations_per_loop is %d, but only the NPU runs loops of its own; on the CPU it must be 1"
                        % loop)
    for name, steps in flags.items():
        if steps is not None and steps % loop:
            raise UserError("--%s must be a multiple of --iterations_per_loop, which is %d; got %d"
                            % (name, loop, steps))


def make_estimator(backend: str, model_fn: Callable[..., Any], model_dir: str, options: RunOptions) -> Any:
    """A tf.estimator.Estimator, or an NPUEstimator, which has the same methods."""
    import tensorflow.compat.v1 as tf          # here: the flags' defaults above need no TensorFlow
    if backend == CPU:
        config = tf.estimator.RunConfig(
            model_dir=model_dir, tf_random_seed=options.random_seed, save_summary_steps=NO_SUMMARIES,
            save_checkpoints_steps=options.save_checkpoints_steps, keep_checkpoint_max=options.keep_checkpoint_max,
            log_step_count_steps=None)
        return tf.estimator.Estimator(model_fn=model_fn, model_dir=model_dir, config=config)
    from npu_bridge.npu_init import NPUEstimator, NPURunConfig  # pylint: disable=import-error
    os.environ.setdefault("RANK_SIZE", "1")    # older releases demand what newer ones assume
    config = NPURunConfig(session_config=npu_session_config(), **npu_run_arguments(model_dir, options))
    return NPUEstimator(model_fn=model_fn, model_dir=model_dir, config=config)


def npu_run_arguments(model_dir: str, options: RunOptions) -> Dict[str, Any]:
    """NPURunConfig's arguments, but for the session's."""
    return {
        "model_dir": model_dir,
        "tf_random_seed": options.random_seed,
        "save_summary_steps": NO_SUMMARIES,
        "save_checkpoints_steps": options.save_checkpoints_steps,
        "keep_checkpoint_max": options.keep_checkpoint_max,
        "iterations_per_loop": options.iterations_per_loop,
        "precision_mode": PRECISION_MODE,
    }


def npu_session_config() -> Any:
    """A new session config, since NPURunConfig changes the one it is given.

    Two of TensorFlow's own graph rewrites contradict those of the device and must be off.
    """
    import tensorflow.compat.v1 as tf
    from tensorflow.core.protobuf.rewriter_config_pb2 import RewriterConfig
    config = tf.ConfigProto(allow_soft_placement=True)
    config.graph_options.rewrite_options.remapping = RewriterConfig.OFF
    config.graph_options.rewrite_options.memory_optimization = RewriterConfig.OFF
    return config
