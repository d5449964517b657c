"""The files with evaluation results: text, JSON and points of curves."""
import os
from typing import Any, Dict, Mapping

import numpy as np
import tensorflow.compat.v1 as tf

from etl.common import files

TEXT_FILE, JSON_FILE = "eval_results.txt", "eval_results.json"


def write_results(folder: str, results: Mapping[str, Any]) -> None:
    """Writes `name = value` lines, sorted, and the same as JSON; NumPy numbers become plain ones."""
    found = plain(results)
    files.write_text(os.path.join(folder, TEXT_FILE),
                     "".join("%s = %s\n" % (name, found[name]) for name in sorted(found)))
    files.write_json(os.path.join(folder, JSON_FILE), found)


def plain(results: Mapping[str, Any]) -> Dict[str, Any]:
    """The same, sorted, with Python numbers instead of NumPy's."""
    return {name: value.item() if isinstance(value, np.generic) else value
            for name, value in sorted(results.items())}


def write_curve_points(folder: str, step: int, results: Mapping[str, Any]) -> None:
    """Writes the metrics of an evaluation to an event file, as points at `step`."""
    with tf.Graph().as_default(), tf.summary.FileWriter(folder) as writer:
        writer.add_summary(tf.Summary(value=[tf.Summary.Value(tag=name, simple_value=float(value))
                                             for name, value in results.items()]), step)
