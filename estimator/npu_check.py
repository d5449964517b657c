"""Checks, without an NPU, whether a training run suits one: inspects the graph that would be sent there.

Takes the trainer's flags and builds the graph as the trainer does, but runs nothing and writes nothing.

  python -m estimator.npu_check --albert_config_file xlarge --train_batch_size 4
  python -m estimator.npu_check finetune --task_name lcqmc --data_dir lcqmc --init_checkpoint none \\
      --report_file report.json

The first word is pretrain, which may be omitted, or finetune. Exit status 1 means that something would fail;
the output says what, where, and what to change. If npu_bridge cannot be imported, the graph has plain
TensorFlow's gelu and dropout under the device's names, without loss scale and sum over devices.
"""
import sys
from dataclasses import dataclass
from typing import Any, Optional, Sequence

from estimator.finetuning.flags import FinetuneConfig
from estimator.npu import devices
from estimator.pretraining.flags import PretrainConfig
from etl.common.command_line import FREE, flag, run

MEMORY_GB = 32.0                               # of an Ascend 910


@dataclass(frozen=True)
class CheckFlags:
    """This command's own flags; the trainer's come from the next base class."""
    memory_gb: float = flag(MEMORY_GB, "memory of a device, 10^9 bytes", on_resume=FREE)
    report_file: Optional[str] = flag(None, "JSON file for the report", on_resume=FREE)
    supported_ops: Optional[str] = flag(
        None, "the adapter's npu_supported_ops.json; without it that of the CANN which is installed here, "
        "if there is one", on_resume=FREE)

    def __post_init__(self: Any) -> None:
        super().__post_init__()  # type: ignore[misc]
        if not self.memory_gb > 0:
            raise ValueError("memory_gb must be above 0, got %g" % self.memory_gb)
        if self.backend == devices.CPU:
            raise ValueError("backend is cpu, but this command checks what an NPU would run")
        if not self.do_train:
            raise ValueError("do_train is false, but only training graphs are checked")

    def choose_device(self: Any) -> devices.Device:
        return devices.plan_device(self.device_options(), self.iterations_per_loop)


@dataclass(frozen=True)
class PretrainCheck(CheckFlags, PretrainConfig):
    """The flags of `pretrain`."""


@dataclass(frozen=True)
class FinetuneCheck(CheckFlags, FinetuneConfig):
    """The flags of `finetune`."""


def main(argv: Optional[Sequence[str]] = None) -> int:
    argv = sys.argv[1:] if argv is None else list(argv)
    if argv[:1] == ["finetune"]:
        return run("estimator.npu_check finetune", __doc__, FinetuneCheck, check_finetuning, argv[1:])
    flags = argv[1:] if argv[:1] == ["pretrain"] else argv
    return run("estimator.npu_check", __doc__, PretrainCheck, check_pretraining, flags)


def check_pretraining(config: PretrainCheck) -> int:
    """Reports on the training graph of `pretrain`; returns 1 if something would fail. Raises UserError as the
    trainer does."""
    from estimator.pretraining import job      # TensorFlow takes two seconds, which --help should not
    return _report_on(job.make_job(config), True, config)


def check_finetuning(config: FinetuneCheck) -> int:
    """The same for `finetune`."""
    from estimator.finetuning import job
    return _report_on(job.make_job(config), False, config)


def _report_on(job: Any, has_masked_lm: bool, config: CheckFlags) -> int:
    from estimator.training import npu_report
    return npu_report.report_on(job, has_masked_lm, config.memory_gb, config.report_file,
                                config.supported_ops)


if __name__ == "__main__":
    sys.exit(main())
