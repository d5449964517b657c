"""Describes checkpoints, averages them, converts them to and from Hugging Face's transformers, adopts
fine-tuned ones.

  python -m estimator.checkpoints inspect --checkpoint output/pretrain
  python -m estimator.checkpoints average --output output/averaged/model.ckpt --checkpoint output/pretrain \\
      --last 5
  python -m estimator.checkpoints average --output output/averaged/model.ckpt \\
      --checkpoint output/pretrain/model.ckpt-9000 output/pretrain/model.ckpt-10000
  python -m estimator.checkpoints to_transformers --checkpoint output/finetune \\
      --output_dir output/transformers
  python -m estimator.checkpoints from_transformers --input_dir bert-base-chinese --output_dir output/bert
  python -m estimator.checkpoints adopt --checkpoint lcqmc_model/model.ckpt-11190 --albert_config_file tiny \\
      --vocab_file albert_tiny_zh/vocab.txt --task_name lcqmc --output_dir output/finetune
"""
import contextlib
import sys
from typing import Any, Dict, Optional, Sequence

from estimator.tools.flags import (AdoptConfig, AverageConfig, FromTransformersConfig, InspectConfig,
                                   ToTransformersConfig)
from etl.common.command_line import run

CONFIGS: Dict[str, Any] = {
    "inspect": InspectConfig, "average": AverageConfig, "to_transformers": ToTransformersConfig,
    "from_transformers": FromTransformersConfig, "adopt": AdoptConfig}


def main(argv: Optional[Sequence[str]] = None) -> int:
    argv = sys.argv[1:] if argv is None else list(argv)
    if argv and argv[0] in CONFIGS:
        return run("estimator.checkpoints " + argv[0], __doc__, CONFIGS[argv[0]], use_tool, argv[1:])
    asked = argv[:1] in (["--help"], ["-h"])
    if argv and not asked:
        print("estimator.checkpoints: error: the first word must be one of %s, got %s (see --help)"
              % (", ".join(CONFIGS), argv[0]), file=sys.stderr)
        return 2
    with contextlib.suppress(BrokenPipeError):   # the reader, such as `head`, has exited
        print(__doc__, file=sys.stdout if asked else sys.stderr, flush=True)
    return 0 if asked else 2


def use_tool(config: Any) -> None:
    """Runs the tool whose flags these are. Raises UserError for invalid input, before a file is written."""
    from estimator.tools import checkpoint_tools     # TensorFlow takes two seconds, which --help should not
    checkpoint_tools.use(config)


if __name__ == "__main__":
    sys.exit(main())
