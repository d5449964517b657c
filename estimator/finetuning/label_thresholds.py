"""Thresholds of labels that were found on the dev examples, in a file beside the checkpoint that they are
for."""
import os
from typing import List

from estimator.weights.model_folder import ON_DEV, ModelFolder
from etl.common import files
from etl.common.command_line import UserError

FILE = "label_thresholds.json"


def write(checkpoint: str, model: ModelFolder, thresholds: List[float]) -> str:
    """Writes the thresholds, by label index, beside a checkpoint; returns the file's path."""
    path = _path_beside(checkpoint)
    files.write_json(path, {"checkpoint": os.path.basename(checkpoint),
                            "thresholds": dict(zip(model.labels, thresholds))})
    return path


def of_model(checkpoint: str, model: ModelFolder) -> List[float]:
    """By label index: the one that was chosen for all, or those beside the checkpoint. Raises UserError where
    these are missing, damaged or of another checkpoint."""
    assert model.labelling is not None
    if model.labelling.label_threshold != ON_DEV:
        return [float(model.labelling.label_threshold)] * len(model.labels)
    path, name = _path_beside(checkpoint), os.path.basename(checkpoint)
    advice = "run estimator.finetune --do_train --do_eval once more, which finds them"
    if not os.path.isfile(path):
        raise UserError("%s: no such file, and the thresholds of %s are there: %s" % (path, name, advice))
    found = files.read_json(path)
    thresholds = found.get("thresholds") if isinstance(found, dict) else None
    if not (isinstance(thresholds, dict) and set(thresholds) == set(model.labels)
            and all(type(value) is float and 0 <= value <= 1 for value in thresholds.values())):
        raise UserError("%s: thresholds must be an object with a number in [0, 1] for each label" % path)
    if found.get("checkpoint") != name:
        raise UserError("%s: checkpoint is %s, wanted %s: %s" % (path, found.get("checkpoint"), name, advice))
    return [thresholds[label] for label in model.labels]


def _path_beside(checkpoint: str) -> str:
    return os.path.join(os.path.dirname(checkpoint), FILE)
