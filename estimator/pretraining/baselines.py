"""Baselines that do not read the text; a pretrained model must beat them."""
import functools
import math
from typing import Dict, Tuple

import numpy as np

from estimator.data import records
from estimator.data.records import PretrainingData
from etl.common.command_line import UserError

BASELINE_RECORDS = 20000                       # maximum number read to count labels


@functools.lru_cache(maxsize=1)                # evaluations repeat, with the same records
def of_data(data: PretrainingData) -> Dict[str, float]:
    """Masked-LM metrics of models that do not read: uniform, and with the frequencies of the training
    labels."""
    counts = [records.label_counts(paths, data, BASELINE_RECORDS)
              for paths in (data.train_files, data.eval_files)]
    for paths, found in zip((data.train_files, data.eval_files), counts):
        if not found.any():
            raise UserError("%s: masked_lm_weights are 0 everywhere: there is nothing to predict"
                            % ", ".join(paths))
    cross_entropy, accuracy = unigram(*counts)
    return {"unigram_cross_entropy": cross_entropy, "unigram_accuracy": accuracy,
            "uniform_cross_entropy": math.log(data.vocab_size)}


def unigram(train_counts: np.ndarray, eval_counts: np.ndarray) -> Tuple[float, float]:
    """How well one guesses masked tokens without looking at the text: (cross-entropy in nats, accuracy).

    Args:
      train_counts: int64 [vocab_size], how often each token is a label in training; add-one smoothing
        is applied.
      eval_counts: int64 [vocab_size], the same for the held-out labels, of which there is at least one.
    """
    smoothed = train_counts + 1.0
    log_probs = np.log(smoothed / smoothed.sum())
    share = eval_counts / eval_counts.sum()
    return float(-np.sum(share * log_probs)), float(share[np.argmax(train_counts)])
