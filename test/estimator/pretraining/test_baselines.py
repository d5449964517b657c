import math

import numpy as np
import pytest

from estimator.pretraining import baselines


def test_unigram_baseline():
    cross_entropy, accuracy = baselines.unigram(np.array([0, 1, 5]), np.array([1, 0, 3]))
    assert cross_entropy == pytest.approx(-(math.log(1 / 9) + 3 * math.log(6 / 9)) / 4)
    assert accuracy == 3 / 4


def test_unigram_baseline_without_training_labels_is_uniform():
    assert baselines.unigram(np.zeros(8), np.array([1] * 8))[0] == pytest.approx(math.log(8))
