"""The folder of versions and the files in each: their names, and how large they, and requests, may be."""
import os
import re
from typing import Dict, Optional

from etl.common.command_line import UserError

MAX_VERSION = (1 << 63) - 1                    # messages have it in 64 bits
MODEL_FILE = "saved_model.pb"
EXTRA_FOLDER = "assets.extra"  # TensorFlow Serving's name for files that the graph does not read
VOCABULARY_FILE = os.path.join(EXTRA_FOLDER, "vocab.txt")
CARD_FILE = os.path.join(EXTRA_FOLDER, "model_card.json")
MAX_CANDIDATES = 64                         # of a question, that the signature `choose` takes
MAX_ENTITIES = 128                          # of a text, that the signature `tag` gives
MAX_FILES = 10000                           # of a version, folders included; an exported one has eight
MAX_GRAPH_BYTES = 1 << 30                   # protobuf's own limit is 2 GiB
MAX_FILE_BYTES = 64 << 20                   # of vocabularies, the card, warm-up requests, a list of variables
_VERSION_NAME = re.compile("[0-9]{1,19}")
_GRAPH_FILE = re.compile(r"saved_model\.pb(txt)?")
_WEIGHTS_FILE = re.compile(r"variables\.data-[0-9]+-of-[0-9]+(\.tempstate[0-9]+)?")


def version_of(name: str) -> Optional[int]:
    """The version whose folder bears this name; None for other names."""
    number = int(name) if _VERSION_NAME.fullmatch(name) else None
    return None if number is None or number > MAX_VERSION else number


def folders_in(base_path: str) -> Dict[int, str]:
    """Folders that may hold a version, by number."""
    names = os.listdir(base_path) if os.path.isdir(base_path) else []
    names.sort(key=lambda name: (-len(name), name))            # of 7 and 007 the former
    return {number: os.path.join(base_path, name) for name in names
            for number in [version_of(name)] if number is not None}


def require_size(path: str, num_bytes: int) -> None:
    """Raises UserError for a file above the size limit of files that are read at once; weights may have any
    size."""
    name = os.path.basename(path)
    most = MAX_GRAPH_BYTES if _GRAPH_FILE.fullmatch(name) else MAX_FILE_BYTES
    if num_bytes > most and not _WEIGHTS_FILE.fullmatch(name):
        raise UserError("%s: must have at most %d bytes, got %d" % (path, most, num_bytes))
