import json

import numpy as np
import tensorflow.compat.v1 as tf

from estimator.training import result_files


def test_results_are_written_as_lines_and_json(tmp_path):
    result_files.write_results(str(tmp_path),
                               {"loss": np.float32(0.5), "global_step": np.int64(7), "accuracy": 0.25})
    assert (tmp_path / "eval_results.txt").read_text() == "accuracy = 0.25\nglobal_step = 7\nloss = 0.5\n"
    assert json.loads((tmp_path / "eval_results.json").read_text()) == {"accuracy": 0.25, "global_step": 7,
                                                                        "loss": 0.5}


def test_points_of_curves(tmp_path):
    result_files.write_curve_points(str(tmp_path), 7, {"loss": 0.5, "num_examples": 3})
    path, = tmp_path.glob("events*")
    found = {value.tag: (event.step, value.simple_value) for event in tf.train.summary_iterator(str(path))
             for value in event.summary.value}
    assert found == {"loss": (7, 0.5), "num_examples": (7, 3.0)}
