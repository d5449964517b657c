"""The files beside an exported graph, in assets.extra/: the vocabulary, the labels, and the model card."""
import os
import platform
import re
import shutil
import subprocess
from typing import Any, Dict, Optional, Sequence

import numpy as np
import tensorflow.compat.v1 as tf

from estimator.model.kinds import CLASSES
from estimator.training import result_files
from estimator.weights.model_folder import ModelFolder
from etl.common import files
from serving.version_files import CARD_FILE, EXTRA_FOLDER

LABELS_FILE = "labels.txt"


def write(folder: str, model: ModelFolder, checkpoint: str, thresholds: Sequence[float] = ()) -> None:
    """Writes assets.extra/ of the exported model in `folder`. The vocabulary keeps its name: vocab.txt
    or spm.model. thresholds: of several labels, by label index."""
    extra = os.path.join(folder, EXTRA_FOLDER)
    os.makedirs(extra)
    vocabulary = _vocabulary(model)
    shutil.copyfile(vocabulary, os.path.join(extra, os.path.basename(vocabulary)))
    files.write_text(os.path.join(extra, LABELS_FILE), "".join(label + "\n" for label in model.labels))
    files.write_json(os.path.join(folder, CARD_FILE), describe(model, checkpoint, thresholds))


def describe(model: ModelFolder, checkpoint: str, thresholds: Sequence[float] = ()) -> Dict[str, Any]:
    """The card. Contains no time and no path, so that the same export gives the same card."""
    return {
        "task": model.task,
        "labels": list(model.labels),
        **({} if model.kind == CLASSES else {"kind": model.kind}),
        **({"reading": model.reading._asdict()} if model.reading else {}),
        **({"tagging": model.tagging._asdict()} if model.tagging else {}),
        **({"thresholds": list(thresholds)} if thresholds else {}),
        "config": model.config.to_dict(),
        "max_seq_length": model.max_seq_length,
        "do_lower_case": model.tokenizer.do_lower_case,
        "vocab_sha256": files.sha256_of_file(_vocabulary(model)),
        "data_manifest_sha256": model.data_manifest_sha256,
        "checkpoint": os.path.basename(checkpoint),
        "metrics": _metrics(checkpoint),
        "versions": {"python": platform.python_version(), "tensorflow": tf.__version__,
                     "numpy": np.__version__}, "git_revision": _git_revision(),
    }


def _vocabulary(model: ModelFolder) -> str:
    return model.tokenizer.vocabulary_file


def _metrics(checkpoint: str) -> Optional[Dict[str, Any]]:
    """The evaluation beside the checkpoint, unless it belongs to another step."""
    path = os.path.join(os.path.dirname(checkpoint), result_files.JSON_FILE)
    step = re.search(r"-(\d+)$", checkpoint)
    found = files.read_json(path) if os.path.exists(path) else {}
    return found if step and found.get("global_step") == int(step.group(1)) else None


def _git_revision() -> Optional[str]:
    """The commit of this code, with -dirty if it has been changed since; None if it is not in its own
    repository."""
    here = os.path.dirname(os.path.abspath(__file__))
    try:
        for command in (["ls-files", "--error-unmatch", os.path.basename(__file__)],
                        ["describe", "--always", "--dirty", "--abbrev=40", "--exclude=*"]):
            said = subprocess.run(["git", "-C", here] + command, check=True, stdout=subprocess.PIPE,
                                  stderr=subprocess.DEVNULL).stdout
    except (OSError, subprocess.CalledProcessError):
        return None
    return said.decode("ascii").strip()
