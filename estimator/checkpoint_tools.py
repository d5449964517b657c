"""Says what a checkpoint is; averages several.

  python -m estimator.checkpoint_tools inspect --checkpoint output/pretrain
  python -m estimator.checkpoint_tools average --output output/averaged/model.ckpt --checkpoint output/pretrain --last 5
  python -m estimator.checkpoint_tools average --output output/averaged/model.ckpt \\
      --checkpoint output/pretrain/model.ckpt-9000 output/pretrain/model.ckpt-10000
"""
import os
import sys
from dataclasses import dataclass
from typing import Optional, Sequence, Tuple

from etl.command_line import UserError, flag, run


@dataclass(frozen=True)
class InspectConfig:
    """The flags of `inspect`."""
    checkpoint: str = flag("", "checkpoint, or folder of one", required=True)


@dataclass(frozen=True)
class AverageConfig:
    """The flags of `average`."""
    checkpoint: Tuple[str, ...] = flag((), "checkpoints of one model; with --last, the folder of them", required=True)
    last: Optional[int] = flag(None, "how many of the folder's newest checkpoints to take")
    output: str = flag("", "prefix of the checkpoint to write", required=True)


def main(argv: Optional[Sequence[str]] = None) -> int:
    argv = sys.argv[1:] if argv is None else list(argv)
    if argv[:1] == ["inspect"]:
        return run("estimator.checkpoint_tools inspect", __doc__, InspectConfig, _inspect, argv[1:])
    if argv[:1] == ["average"]:
        return run("estimator.checkpoint_tools average", __doc__, AverageConfig, _average, argv[1:])
    asked = argv[:1] in (["--help"], ["-h"])
    print(__doc__, file=sys.stdout if asked else sys.stderr)
    return 0 if asked else 2


def _inspect(config: InspectConfig) -> None:
    from estimator import checkpoints          # TensorFlow takes two seconds: --help need not wait
    print(checkpoints.describe(checkpoints.resolve(config.checkpoint, "checkpoint")))


def _average(config: AverageConfig) -> None:
    from estimator import checkpoints
    if config.last is None:
        found = [checkpoints.resolve(checkpoint, "checkpoint") for checkpoint in config.checkpoint]
    elif len(config.checkpoint) == 1:
        found = checkpoints.newest(config.checkpoint[0], config.last)
    else:
        raise UserError("--last takes one folder as --checkpoint, got %d" % len(config.checkpoint))
    checkpoints.average(found, config.output)
    print("%s: mean of %d checkpoints: %s" % (config.output, len(found), ", ".join(map(os.path.basename, found))))


if __name__ == "__main__":
    sys.exit(main())
