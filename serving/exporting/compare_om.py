"""Runs offline models on an Ascend device and compares their answers with those that plain TensorFlow gave.

  python3 compare_om.py --device 0 --tolerance 0.01

This file is copied into each kit of serving.export --format ascend, beside convert.sh, and needs nothing else
of ours: NumPy, and ais_bench with aclruntime, Ascend's tool for offline models. For each shape it prints the
largest difference of a probability, how many labels differ, and the time of one inference; the exit status is
1 when a difference exceeds the tolerance. float16 rounds to 3 digits, so probabilities differ in the third.
"""
import argparse
import glob
import os
import re
import sys
import time
from typing import Any, Dict, List, NamedTuple, Optional, Sequence, Tuple

import numpy as np

INPUTS = ("input_ids", "input_mask", "segment_ids")
OUTPUT = "probabilities"
OPEN = "open"                                  # folder of the model with open dimensions
STATIC_MODE, OPEN_MODE = "static", "dymdims"   # as ais_bench calls them
TIMED = 5                                      # inferences, of which the fastest counts


class Case(NamedTuple):
    """A model at one shape, and the folder of its inputs and of what is expected."""
    model: str
    folder: str
    batch_size: int
    length: int
    mode: str


class Compared(NamedTuple):
    """How far a model's answers are from those expected."""
    difference: float
    labels: int                                # rows whose most likely label is another
    seconds: float


def main(argv: Optional[Sequence[str]] = None) -> int:
    parser = argparse.ArgumentParser(description=__doc__,
                                     formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--device", type=int, default=0, help="number of the device (default: 0)")
    parser.add_argument("--tolerance", type=float, default=0.01,
                        help="largest difference of a probability that is accepted (default: 0.01)")
    arguments = parser.parse_args(argv)
    kit = os.path.dirname(os.path.abspath(__file__))
    cases = find_cases(kit)
    missing = sorted({os.path.relpath(case.model, kit) for case in cases if not os.path.isfile(case.model)})
    if missing or not cases:
        return fail("%s: no such file: run convert.sh first" % (missing[0] if missing else "model.om"))
    try:
        from ais_bench.infer.interface import InferSession
    except ImportError as error:
        return fail("%s: install ais_bench and aclruntime, and source CANN's set_env.sh" % error)
    worst = 0.0
    sessions: Dict[str, Any] = {}
    for case in cases:
        if case.model not in sessions:
            sessions[case.model] = InferSession(arguments.device, case.model)
        found = compare(sessions[case.model], case)
        print("%-28s difference %.6f  other labels %d of %d  %.2f ms" % (
            os.path.relpath(case.folder, kit), found.difference, found.labels, case.batch_size,
            1000 * found.seconds))
        # not a number is no agreement
        worst = max(worst, found.difference if np.isfinite(found.difference) else np.inf)
    for session in sessions.values():
        if hasattr(session, "free_resource"):  # not in all releases
            session.free_resource()
    if worst > arguments.tolerance:
        return fail("the largest difference is %g, above the tolerance, %g" % (worst, arguments.tolerance))
    print("All %d shapes agree within %g" % (len(cases), arguments.tolerance))
    return 0


def fail(message: str) -> int:
    print("compare_om: error: " + message, file=sys.stderr)
    return 1


def find_cases(kit: str) -> List[Case]:
    """The shapes of a kit: those that have a model of their own, and the profiles of the open one."""
    found = []
    for parent, mode in ((kit, STATIC_MODE), (os.path.join(kit, OPEN), OPEN_MODE)):
        for folder in glob.glob(os.path.join(glob.escape(parent), "b*_l*")):
            shape = re.match(r"b(\d+)_l(\d+)$", os.path.basename(folder))
            if shape:
                holder = parent if mode == OPEN_MODE else folder
                found.append(Case(model_in(holder), folder, int(shape.group(1)), int(shape.group(2)), mode))
    return sorted(found, key=lambda case: (case.mode == OPEN_MODE, case.batch_size, case.length))


def model_in(folder: str) -> str:
    """The offline model of a folder; for models with open dimensions atc may add system and processor to the
    name."""
    found = sorted(glob.glob(os.path.join(glob.escape(folder), "model*.om")))
    return found[0] if found else os.path.join(folder, "model.om")


def compare(session: Any, case: Case) -> Compared:
    """One case on the device."""
    given, wanted = read_case(case)
    names = [description.name for description in session.get_inputs()]
    # in the order of atc's --input_shape where the model calls them otherwise
    feeds = [given[name] for name in (names if set(names) == set(INPUTS) else INPUTS)]
    times = []
    for _ in range(TIMED):
        begin = time.time()
        outputs = session.infer(feeds, mode=case.mode)
        times.append(time.time() - begin)
    # of an open model the device may give room for the largest profile
    found = np.asarray(outputs[0], np.float32).reshape(-1)[:wanted.size].reshape(wanted.shape)
    return Compared(float(np.abs(found - wanted).max()),
                    int((found.argmax(axis=1) != wanted.argmax(axis=1)).sum()), min(times))


def read_case(case: Case) -> Tuple[Dict[str, np.ndarray], np.ndarray]:
    """Inputs by name, int32 [batch, length], and probabilities, float32 [batch, labels]."""
    inputs = {name: np.fromfile(os.path.join(case.folder, name + ".bin"), "<i4").reshape(
        case.batch_size, case.length) for name in INPUTS}
    wanted = np.fromfile(os.path.join(case.folder, OUTPUT + ".bin"), "<f4")
    return inputs, wanted.reshape(case.batch_size, -1)


if __name__ == "__main__":
    raise SystemExit(main())
