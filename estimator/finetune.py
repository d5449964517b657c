"""Trains a classifier or a regression on labelled sentences or pairs, or a model that finds answers in
passages or chooses among candidates; evaluates it and predicts with it.

Starts from a pretrained checkpoint, whose folder has config and vocabulary. Without flags it trains on the
sample sentence pairs, starting from the output of python -m estimator.pretrain. --list_tasks lists the tasks
and their files.

  python -m estimator.finetune --do_train=true --do_eval=true
  python -m estimator.finetune --preset afqmc --data_dir afqmc --init_checkpoint albert_tiny_zh \\
      --albert_config_file tiny --vocab_file vocab.txt --do_train --do_eval --do_predict
  python -m estimator.finetune --task_name single_sentence --data_dir reviews \\
      --columns text_a=review label=stars \\
      --labels 1 2 3 4 5 --seeds 1,2,3
  python -m estimator.finetune --task_name reading --data_dir questions --do_train --do_eval

After each epoch the dev examples are evaluated; the best checkpoint is kept in best/, and is used for the
final evaluation, for predictions and by python -m serving.export. An interrupted run resumes when the same
command runs again.
"""
from typing import Optional, Sequence

from estimator.data import tasks
from estimator.finetuning.flags import FinetuneConfig
from etl.common.command_line import run


def main(argv: Optional[Sequence[str]] = None) -> int:
    return run("estimator.finetune", __doc__, FinetuneConfig, finetune, argv)


def finetune(config: FinetuneConfig) -> None:
    """Lists the tasks, or trains. Raises UserError for a user error, before a file is written."""
    if config.list_tasks:
        print(tasks.describe_all())
        return
    from estimator.finetuning import job       # TensorFlow takes two seconds, which --help should not
    job.finetune(config)


if __name__ == "__main__":
    raise SystemExit(main())
