"""Pretrains a model on masked words and sentence order, and evaluates it on held-out records.

Lengths and vocabulary come from the records' manifest. An interrupted run resumes when the same command runs
again, with exactly the batch that would have been next.

  python -m estimator.pretrain --train_batch_size 32 --num_train_steps 1000 --num_warmup_steps 100
  python -m estimator.pretrain --input_file 'records/*.tfrecord' --vocab_file vocab.txt \\
      --max_seq_length 512 \\
      --max_predictions_per_seq 51 --do_eval false
"""
from typing import Optional, Sequence

from estimator.pretraining.flags import PretrainConfig
from etl.common.command_line import run


def main(argv: Optional[Sequence[str]] = None) -> int:
    return run("estimator.pretrain", __doc__, PretrainConfig, pretrain, argv)


def pretrain(config: PretrainConfig) -> None:
    """Checks, trains, evaluates. Raises UserError for a user error, before a file is written."""
    from estimator.pretraining import job      # TensorFlow takes two seconds, which --help should not
    job.pretrain(config)


if __name__ == "__main__":
    raise SystemExit(main())
