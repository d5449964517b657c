"""What a benchmark measured, round by round, as JSON lines: written by each script, read by bench.py."""
import json
import os
from typing import List, Mapping, NamedTuple, Optional, Sequence

OURS = "ours"                                  # the alternative that the others are held against


class Result(NamedTuple):
    """One thing, measured by several alternatives in turn."""
    benchmark: str                             # the script, and which part of it
    what: str                                  # size and setting
    unit: str                                  # a unit with a slash is a rate: more is better; else less is
    rounds: Mapping[str, Sequence[float]]      # by alternative


def append(path: Optional[str], benchmark: str, what: str, unit: str,
           rounds: Mapping[str, Sequence[float]]) -> None:
    """Adds a line to the file; without one it does nothing, so that a script runs by itself, too."""
    if path:
        result = Result(benchmark, what, unit,
                        {name: [float(value) for value in values] for name, values in rounds.items()})
        with open(path, "a", encoding="utf-8") as stream:
            stream.write(json.dumps(result._asdict(), ensure_ascii=False) + "\n")


def read(path: str) -> List[Result]:
    """All lines of the file, in order; none where no script has written any."""
    if not os.path.exists(path):
        return []
    with open(path, encoding="utf-8") as stream:
        return [Result(**json.loads(line)) for line in stream]
