"""The folder of versions and the files in each: their names, and how large they, and requests, may be."""
import os
import re
from typing import Dict

from etl.common.command_line import UserError

VERSION_NAME = re.compile("[0-9]{1,18}")       # of a version's folder
MODEL_FILE = "saved_model.pb"
EXTRA_FOLDER = "assets.extra"  # TensorFlow Serving's name for files that the graph does not read
VOCABULARY_FILE = os.path.join(EXTRA_FOLDER, "vocab.txt")
CARD_FILE = os.path.join(EXTRA_FOLDER, "model_card.json")
MAX_CANDIDATES = 64                         # of a question, that the signature `choose` takes
MAX_GRAPH_BYTES = 1 << 30                   # protobuf's own limit is 2 GiB
MAX_FILE_BYTES = 64 << 20                   # of vocabularies, the card, warm-up requests, a list of variables
_GRAPH_FILE = re.compile(r"saved_model\.pb(txt)?")
_WEIGHTS_FILE = re.compile(r"variables\.data-[0-9]+-of-[0-9]+(\.tempstate[0-9]+)?")


def folders_in(base_path: str) -> Dict[int, str]:
    """Folders that may hold a version, by number."""
    names = os.listdir(base_path) if os.path.isdir(base_path) else []
    names.sort(key=lambda name: (-len(name), name))            # of 7 and 007 the former
    return {int(name): os.path.join(base_path, name) for name in names if VERSION_NAME.fullmatch(name)}


def require_size(path: str, num_bytes: int) -> None:
    """Raises UserError for a file above the size limit of files that are read at once; weights may have any
    size."""
    name = os.path.basename(path)
    most = MAX_GRAPH_BYTES if _GRAPH_FILE.fullmatch(name) else MAX_FILE_BYTES
    if num_bytes > most and not _WEIGHTS_FILE.fullmatch(name):
        raise UserError("%s: must have at most %d bytes, got %d" % (path, most, num_bytes))
