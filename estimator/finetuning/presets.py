"""Settings that the authors of released weights published for a task, and the scores they report.

Both are theirs: with their weights and data, results should be close; with other weights the settings are
only a starting point.
"""
from typing import Dict, NamedTuple, Optional

from estimator.data.entities import LONGEST


class Preset(NamedTuple):
    """One task's settings, by the flags' names, and what was reported."""
    task_name: str
    max_seq_length: int
    train_batch_size: int
    learning_rate: float
    num_train_epochs: float
    published: str
    max_answer_length: Optional[int] = None
    overlaps: Optional[str] = None


# Batch, rate and epochs of reading: CLUE's scripts (CLUEbenchmark/CLUE, baselines/models_pytorch/mrc_pytorch/
# run_mrc_*.sh), which cut passages of CMRC and DRCD at 256 tokens; lengths, figures and what ALBERT's were
# trained with: the tables of its README. Of CLUENER: CLUEbenchmark/CLUENER2020,
# pytorch_version/run_ner_softmax.sh. Of MSRA: the defaults of ProHiryu/bert-chinese-ner, BERT_NER.py.
_CLUE = "CLUE's test set, accuracy in %%: tiny %s, base %s, large %s, xlarge %s"

PRESETS: Dict[str, Preset] = {preset.task_name: preset for preset in (
    Preset("afqmc", 128, 16, 2e-5, 3, _CLUE % (69.92, 72.55, 74, 69.96)),
    Preset("c3", 512, 16, 2e-5, 8, "no figure for these weights"),
    Preset("chid", 64, 24, 2e-5, 3, "CLUE's test set, accuracy in %: tiny 43.53"),
    Preset("cluener", 128, 24, 3e-5, 4, "no figure for these weights", overlaps=LONGEST),
    Preset("cmnli", 128, 64, 3e-5, 2, _CLUE % (70.61, 77.58, 78.77, 81.13)),
    Preset("cmrc2018", 512, 32, 3e-5, 2, "CLUE's test set, exact match in %: tiny 53.68 "
           "(learning rate 2e-4), large 73.66 and xlarge 75.22 (2e-5), with 3 epochs", 50),
    Preset("csl", 128, 16, 1e-5, 5, _CLUE % (74.56, 78.5, 80.30, 81.20)),
    Preset("drcd", 512, 32, 3e-5, 2, "CLUE's test set, exact match in %: tiny 70.08 (learning rate 2e-4), "
           "large 87.52 (2e-5), xlarge 89.78 (2.5e-5), with 3 epochs", 50),
    Preset("iflytek", 128, 32, 2e-5, 3, _CLUE % (48.71, 56.58, 57.00, 59.50)),
    Preset("lcqmc", 128, 64, 1e-4, 5, "LCQMC's test set, accuracy in %: tiny 85.4, small 86.0, base 86.3, "
           "large 87.1, xlarge 87.7; the learning rate is for tiny"),
    Preset("msra", 128, 32, 5e-5, 3, "no figure for these weights"),
    Preset("tnews", 128, 16, 2e-5, 3, _CLUE % (53.35, 55.06, 55.16, 57.36)),
    Preset("wsc", 128, 16, 1e-5, 10, _CLUE % (58.5, 64.34, 62.24, 64.34)),
)}
