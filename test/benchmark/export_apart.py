"""A model to be measured, made and exported by processes of their own: what loads a model has not exported
it before."""
import os
import subprocess
import sys
from typing import Tuple

ROOT = os.path.dirname(os.path.dirname(os.path.dirname(os.path.abspath(__file__))))
MAKE_MODEL = ("import sys; from exported import make_shipped_classifier; "
              "make_shipped_classifier(*sys.argv[1:])")


def export_apart(config: str, folder: str) -> Tuple[str, str]:
    """Writes a shipped config's classifier of random values, for 128 tokens, below `folder`.

    Returns the folder of its checkpoint, and the one of its versions, which holds version 1.
    """
    finetuned, exported = os.path.join(folder, "finetune"), os.path.join(folder, "export")
    paths = os.pathsep.join([ROOT, os.path.join(ROOT, "test", "helpers")])
    environment = dict(os.environ, TF_CPP_MIN_LOG_LEVEL="2", PYTHONPATH=paths)
    subprocess.run([sys.executable, "-c", MAKE_MODEL, finetuned, config], check=True, env=environment)
    subprocess.run([sys.executable, "-m", "serving.export", "--checkpoint_dir", finetuned, "--output_dir",
                    exported, "--version", "1"], check=True, cwd=ROOT, stdout=subprocess.DEVNULL)
    return finetuned, exported
