"""Samples → the features of their records, as `etl.records.examples` encodes them."""
from typing import Dict

import numpy as np

from etl.samples.instances import Instances


def instance_features(instances: Instances, with_token_boundary: bool = False) -> Dict[str, np.ndarray]:
    """The values of `pretraining_features`: {name: bool, int32 or float32 array [samples, length]}."""
    places = np.arange(instances.input_ids.shape[1])
    slots = np.arange(instances.masked_lm_ids.shape[1])
    input_mask = places < instances.lengths[:, None]
    values = {
        "input_ids": instances.input_ids,
        "input_mask": input_mask,
        "segment_ids": input_mask & (places >= instances.first_lengths[:, None]),
        "masked_lm_positions": instances.masked_lm_positions,
        "masked_lm_ids": instances.masked_lm_ids,
        "masked_lm_weights": (slots < instances.num_predictions[:, None]).astype(np.float32),
        "next_sentence_labels": instances.labels[:, None] == 1,
    }
    if with_token_boundary:
        values["token_boundary"] = instances.word_starts
    return values
