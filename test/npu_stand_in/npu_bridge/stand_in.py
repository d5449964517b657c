"""What is common to the stand-in: which generation it plays, what it was given, words between local ranks.

The stand-in is a small npu_bridge of our own for tests. It runs on the CPU over tf.estimator and raises what
the real package raises. It is not the real package: names, arguments and checks follow it, kernels and
compilation do not exist.

Environment: NPU_STAND_IN_GENERATION (H: February 2021, M: December 2023), NPU_STAND_IN_RECORD (a file that
gets a JSON line for each event), NPU_STAND_IN_OVERFLOWS (updates that overflow, from 1: "3,7"),
NPU_STAND_IN_INF_NAN (a device that computes with infinities), NPU_STAND_IN_KILLED_AT (the call of a training
session, from 1, after which the process kills itself), NPU_STAND_IN_EXCHANGE (a folder that local ranks
share).
"""
import io
import json
import os
import signal
import time

import numpy as np

RECORDED = []                                  # (event, value)
TIMEOUT_SECONDS = 60

_calls = [0]                                   # of training sessions, in this process
_exchanges = [0]  # done by this process; the ranks do the same ones in the same order


def generation():
    found = os.environ.get("NPU_STAND_IN_GENERATION", "H")
    assert found in ("H", "M"), found
    return found


def record(event, value):
    RECORDED.append((event, value))
    path = os.environ.get("NPU_STAND_IN_RECORD")
    if path:
        with open(path, "a") as stream:
            stream.write(json.dumps([event, value]) + "\n")


def overflows():
    """Updates that overflow, counted from 1."""
    return [int(word) for word in os.environ.get("NPU_STAND_IN_OVERFLOWS", "").split(",") if word]


def count_call():
    """A training session has been called; it may have been the last time."""
    _calls[0] += 1
    if os.environ.get("NPU_STAND_IN_KILLED_AT") == str(_calls[0]):
        os.kill(os.getpid(), signal.SIGKILL)


def require_environment():
    """The real package asks for these when an Estimator is made."""
    if not os.environ.get("JOB_ID"):
        raise (AttributeError if generation() == "H" else ValueError)("JOB_ID is not set")
    if generation() == "H" and not os.environ.get("RANK_SIZE"):
        raise AttributeError("RANK_SIZE is not set")
    if os.environ.get("RANK_TABLE_FILE") and not os.environ.get("RANK_ID"):
        raise ValueError("RANK_ID is not set, but RANK_TABLE_FILE is")
    if os.environ.get("CM_WORKER_SIZE") and os.environ.get("RANK_SIZE"):
        raise ValueError("RANK_SIZE and CM_WORKER_SIZE cannot be set at the same time")


def rank_size():
    if generation() == "M":
        return int(os.environ.get("RANK_SIZE") or os.environ.get("CM_WORKER_SIZE", "1"))
    return int(os.environ.get("RANK_SIZE", "1"))


def rank_id():
    """Without a table, what collective communication makes of devices that count from the chief's on."""
    if os.environ.get("CM_WORKER_SIZE"):
        return int(os.environ["ASCEND_DEVICE_ID"]) - int(os.environ["CM_CHIEF_DEVICE"])
    return int(os.environ.get("RANK_ID", "0"))


def exchange(arrays):
    """The arrays of all ranks, by rank, once every rank has come here."""
    folder, number, rank = os.environ["NPU_STAND_IN_EXCHANGE"], _exchanges[0], rank_id()
    _exchanges[0] += 1
    buffer = io.BytesIO()
    np.savez(buffer, *arrays)
    path = os.path.join(folder, "%d.%d.npz" % (number, rank))
    with open(path + ".part", "wb") as stream:
        stream.write(buffer.getvalue())
    os.replace(path + ".part", path)
    found = [_wait_for(os.path.join(folder, "%d.%d.npz" % (number, other))) for other in range(rank_size())]
    before = os.path.join(folder, "%d.%d.npz" % (number - 1, rank))
    if os.path.exists(before):                 # whoever wrote the new file has read the old one
        os.remove(before)
    return found


def _wait_for(path):
    deadline = time.time() + TIMEOUT_SECONDS
    while not os.path.exists(path):
        if time.time() > deadline:
            raise TimeoutError("no word from the other rank: %s" % path)
        time.sleep(0.002)
    with np.load(path) as found:
        return [found["arr_%d" % index] for index in range(len(found.files))]
