import numpy as np

from etl.records.examples import deserialize_example, pretraining_features, serialize_examples
from etl.samples.features import instance_features
from etl.samples.instances import Instances
from etl.samples.masking import KEPT, MASKED

INSTANCES = Instances(
    input_ids=np.array([[2, 9, 4, 3, 11, 3, 0, 0], [2, 9, 9, 9, 3, 8, 8, 3]], np.int32),
    word_starts=np.array([[1, 1, 0, 1, 1, 1, 0, 0], [1] * 8], bool), lengths=np.array([6, 8], np.int32),
    first_lengths=np.array([4, 5], np.int32), masked_lm_positions=np.array([[2, 4, 0], [1, 2, 6]], np.int32),
    masked_lm_ids=np.array([[10, 11, 0], [9, 300, 20000]], np.int32),
    masked_lm_kinds=np.array([[MASKED, KEPT, 0], [MASKED] * 3], np.int8),
    num_predictions=np.array([2, 3], np.int32), labels=np.array([1, 0], np.int32),
    is_cut=np.array([False, True]))


def test_instance_features():
    values = {name: array.tolist() for name, array in instance_features(INSTANCES, True).items()}
    assert values == {
        "input_ids": [[2, 9, 4, 3, 11, 3, 0, 0], [2, 9, 9, 9, 3, 8, 8, 3]],
        "input_mask": [[1, 1, 1, 1, 1, 1, 0, 0], [1] * 8],
        "segment_ids": [[0, 0, 0, 0, 1, 1, 0, 0], [0, 0, 0, 0, 0, 1, 1, 1]],
        "masked_lm_positions": [[2, 4, 0], [1, 2, 6]], "masked_lm_ids": [[10, 11, 0], [9, 300, 20000]],
        "masked_lm_weights": [[1.0, 1.0, 0.0], [1.0] * 3], "next_sentence_labels": [[1], [0]],
        "token_boundary": [[1, 1, 0, 1, 1, 1, 0, 0], [1] * 8]}
    assert "token_boundary" not in instance_features(INSTANCES)


def test_values_are_the_features():
    for record in serialize_examples(instance_features(INSTANCES, True)):
        assert {
            name: (str(array.dtype), len(array)) for name, array in deserialize_example(record).items()} == {
                feature.name: (feature.dtype, feature.length) for feature in pretraining_features(8, 3, True)}


def test_rows_do_not_depend_on_their_neighbours():
    values = instance_features(INSTANCES)
    assert serialize_examples(values) == [
        record for row in (slice(0, 1), slice(1, 2))
     for record in serialize_examples({name: array[row] for name, array in values.items()})]
