"""The flags of estimator.pretrain, and what is derived only from them."""
from dataclasses import dataclass
from typing import Optional, Tuple

from estimator.optimization.names import LAMB, OPTIMIZERS
from estimator.training.flags import TrainingFlags
from etl.common.command_line import FIXED, FREE, SAME_CONTENT, flag

PUBLISHED_STEPS = 125000                       # for ALBERT (Lan et al. 2019, section 4.1)
BEST_METRICS = ("masked_lm_loss", "masked_lm_accuracy", "perplexity", "sentence_order_accuracy",
                "sentence_order_loss")


@dataclass(frozen=True)
class PretrainConfig(TrainingFlags):
    """The flags of this command. Rates and sizes are those published for ALBERT, unless there is too little
    data for them."""
    input_file: Tuple[str, ...] = flag(("output/pretrain_data",),
                                        "folder of etl.build_pretrain, or globs of TFRecord files",
                                       on_resume=SAME_CONTENT)
    eval_input_file: Tuple[str, ...] = flag(
        (), "globs of held-out TFRecord files, if --input_file names files", on_resume=SAME_CONTENT)
    output_dir: str = flag("output/pretrain", "folder for checkpoints, event files and results",
                           on_resume=FREE)
    albert_config_file: str = flag("tiny", "a bundled config by name, or a config file",
                                   on_resume=SAME_CONTENT)
    init_checkpoint: Optional[str] = flag(None, "checkpoint, or its folder, to start from",
                                          on_resume=SAME_CONTENT)
    new_heads: bool = flag(False, "start the heads that --init_checkpoint lacks from random values",
                           on_resume=FREE)
    vocab_file: Optional[str] = flag(None, "vocabulary of the records, if --input_file names files",
                                     on_resume=SAME_CONTENT)
    do_lower_case: bool = flag(True, "whether their text was lower-cased", on_resume=SAME_CONTENT)
    max_seq_length: Optional[int] = flag(None, "tokens per record; default: the manifest's",
                                         on_resume=SAME_CONTENT)
    max_predictions_per_seq: Optional[int] = flag(None, "predictions per record; default: the manifest's",
                                                  on_resume=SAME_CONTENT)
    train_batch_size: Optional[int] = flag(
        None, "records per batch; default: 4096, or 32 when there are fewer than 409,600 records")
    eval_batch_size: int = flag(64, "records per evaluation step", on_resume=FREE)
    optimizer: str = flag(LAMB, "update rule", OPTIMIZERS, on_resume=FIXED)
    learning_rate: float = flag(0.00176, "highest learning rate")
    num_train_steps: Optional[int] = flag(None, "total training steps; default: 125,000, or 3 epochs when "
                                          "there are fewer than 409,600 records")
    num_warmup_steps: Optional[int] = flag(
        None, "steps in which the learning rate rises; default: 1/40 of the steps: 3,125 of 125,000")
    poly_power: float = flag(1.0, "power of the learning rate's decay")
    eval_every: Optional[int] = flag(
        None, "steps between evaluations while training; default: one at the end", on_resume=FREE)
    best_metric: str = flag("masked_lm_loss", "evaluation metric that selects the checkpoint kept in best/",
                            BEST_METRICS, on_resume=FREE)
    max_eval_steps: Optional[int] = flag(None, "maximum evaluation steps; default: all held-out records",
                                         on_resume=FREE)

    def __post_init__(self) -> None:
        super().__post_init__()
        self.require_at_least_1("train_batch_size", "eval_batch_size", "num_train_steps", "eval_every",
                                "max_eval_steps", "max_seq_length", "max_predictions_per_seq")
        warmup, steps = self.num_warmup_steps or 0, self.num_train_steps or PUBLISHED_STEPS
        if not 0 <= warmup <= steps:
            raise ValueError("num_warmup_steps must be in [0, %d], since num_train_steps is %d; got %d"
                             % (steps, steps, warmup))
        if not (self.do_train or self.do_eval):
            raise ValueError("do_train and do_eval are both false: nothing to do")
        if not self.poly_power > 0:
            raise ValueError("poly_power must be above 0, got %s" % self.poly_power)
        if self.new_heads and not self.init_checkpoint:
            raise ValueError("new_heads is true, but there is no init_checkpoint")
        if self.eval_every and not self.do_eval:
            raise ValueError("eval_every is %d, but do_eval is false" % self.eval_every)
