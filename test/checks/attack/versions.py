"""Versions whose files hang, never end, are too large or say nonsense, beside good ones: a FIFO, a dead
mount, a warm-up without end, ….

As root, for the mount: it is a file system whose requests nobody answers, in a mount namespace that ends with
this script.
"""
import contextlib
import ctypes
import json
import os
import re
import shutil
import signal
import subprocess
import sys
import time
import urllib.request
from typing import Any, Callable, Iterator, Optional

from target import FOLDER, ROOT, Outcome, Server, end, export_model

sys.path.insert(0, ROOT)

from tensorflow_serving.apis.prediction_log_pb2 import PredictionLog

from etl.records.examples import frame

SECONDS = 60                                   # for whatever should happen soon
CLONE_NEWNS, MS_REC, MS_PRIVATE, MNT_DETACH = 0x20000, 0x4000, 0x40000, 2
RECORDS, EXAMPLES = 1000, 1500  # of warm-up: as many and as large as may be, so that it does not end soon
LARGE = {"assets.extra/vocab.txt": 3 << 30, "assets.extra/model_card.json": 1 << 30,
         "assets.extra/tf_serving_warmup_requests": 1 << 30, "saved_model.pb": 1900 << 20}


def main() -> int:
    outcome = Outcome()
    shutil.rmtree(os.path.join(FOLDER, "versions"), ignore_errors=True)
    good = export_model(os.path.join(FOLDER, "export"))
    hanging = {"a FIFO": make_fifo, "20,000 files": make_many_files, "a warm-up without end": make_endless,
               "a card whose config is a list": with_card(b'{"labels": ["0", "1"], "config": []}'),
               "a card whose positions are a text": with_card(b'{"labels": ["0", "1"], "config": '
                                                              b'{"max_position_embeddings": "x"}}'),
               **{"%s of %d MB with nothing in it" % (name, size >> 20): with_large(name, size)
                  for name, size in LARGE.items()}}
    try:
        is_root = enter_namespace()
        if is_root:
            hanging["a dead mount"] = make_dead
        else:
            print("no dead mount is tried: that needs root and /dev/fuse")
        for name, make in hanging.items():
            try_beside(outcome, name, good, make)
        try_at_the_start(outcome, good, make_dead if is_root else make_endless)
        try_to_end_a_start(outcome, good)
        if is_root:
            try_dead_base(outcome)
    finally:
        shutil.rmtree(os.path.join(FOLDER, "versions"), ignore_errors=True)
    return outcome.status()


def try_beside(outcome: Outcome, name: str, good: str, make: Callable[[str, str], None]) -> None:
    """A bad version appears while a good one serves, a better one after it; then the server is ended."""
    with versions(good, 1) as folder, Server("versions", "--access_log", "false", "--load_timeout_seconds",
                                             "20", versions_folder=folder) as server:
        make(good, os.path.join(folder, "2"))
        said = wait_for(lambda: state(server, 2) == "END" and message(server, 2))
        outcome.tell(name + ": told", bool(said) and server.megabytes(peak=True) < 1000,
                     "%s; %.0f MB at most" % (said or "nothing is said", server.megabytes(peak=True)))
        os.rename(shutil.copytree(good, os.path.join(folder, ".3")), os.path.join(folder, "3"))
        start = time.monotonic()
        serves = wait_for(lambda: state(server, 3) == "AVAILABLE")
        outcome.tell(name + ": a later version serves", bool(serves),
                     "after %.1f s" % (time.monotonic() - start))
        tell_end(outcome, name + ": SIGTERM", server.process)


def try_at_the_start(outcome: Outcome, good: str, make: Callable[[str, str], None]) -> None:
    with versions(good, 1) as folder:
        make(good, os.path.join(folder, "2"))
        start = time.monotonic()
        with Server("versions", "--access_log", "false", "--load_timeout_seconds", "20",
                    versions_folder=folder) as server:
            outcome.tell("the newest hangs when the server starts", state(server, 1) == "AVAILABLE",
                         "the one before serves after %.1f s" % (time.monotonic() - start))


def try_to_end_a_start(outcome: Outcome, good: str) -> None:
    with versions(good, None) as folder:
        make_endless(good, os.path.join(folder, "2"))
        process = start_server(folder)
        try:
            wait_for(lambda: catches_sigterm(process.pid))
            time.sleep(5)                      # it loads by then, and would for minutes
            tell_end(outcome, "SIGTERM while the first load hangs", process)
        finally:
            process.kill()


def try_dead_base(outcome: Outcome) -> None:
    folder = os.path.join(FOLDER, "versions", "dead")
    make_dead("", folder)
    process = start_server(folder)
    try:
        said = process.communicate(timeout=SECONDS)[1].decode()
        outcome.tell("--model_base_path is a dead mount", process.returncode == 1 and said.count("\n") == 1,
                     said.strip())
    except subprocess.TimeoutExpired:
        outcome.tell("--model_base_path is a dead mount", False, "the server says nothing for %d s" % SECONDS)
    finally:
        process.kill()
        detach(folder)


def start_server(folder: str) -> "subprocess.Popen[bytes]":
    return subprocess.Popen([sys.executable, "-m", "serving.server", "--model_base_path", folder, "--port",
                             "0", "--rest_api_port", "0"], cwd=ROOT, stdout=subprocess.PIPE,
                            stderr=subprocess.PIPE, env=dict(os.environ, TF_CPP_MIN_LOG_LEVEL="2"))


def catches_sigterm(pid: int) -> bool:
    with open("/proc/%d/status" % pid) as stream:
        caught = re.search(r"SigCgt:\s+(\S+)", stream.read())
    return bool(caught and int(caught.group(1), 16) >> signal.SIGTERM - 1 & 1)


def tell_end(outcome: Outcome, name: str, process: "subprocess.Popen[bytes]") -> None:
    seconds, status = end(process, SECONDS)
    outcome.tell(name, status == 0, "status %s after %.1f s" % (status, seconds))


def make_fifo(good: str, folder: str) -> None:
    shutil.copytree(good, folder + ".tmp")
    os.remove(os.path.join(folder + ".tmp", "saved_model.pb"))
    os.mkfifo(os.path.join(folder + ".tmp", "saved_model.pb"))
    os.rename(folder + ".tmp", folder)


def make_many_files(good: str, folder: str) -> None:
    shutil.copytree(good, folder + ".tmp")
    for number in range(20000):
        open(os.path.join(folder + ".tmp", "variables", str(number)), "wb").close()
    os.rename(folder + ".tmp", folder)


def make_endless(good: str, folder: str) -> None:
    shutil.copytree(good, folder + ".tmp")
    log = PredictionLog()
    log.classify_log.request.model_spec.signature_name = "classify"
    for _ in range(EXAMPLES):
        feature = log.classify_log.request.input.example_list.examples.add().features.feature["text_a"]
        feature.bytes_list.value.append("手机没信号".encode())
    with open(os.path.join(folder + ".tmp", "assets.extra", "tf_serving_warmup_requests"), "wb") as stream:
        stream.write(frame(log.SerializeToString()) * RECORDS)
    os.rename(folder + ".tmp", folder)


def with_card(card: bytes) -> Callable[[str, str], None]:
    def make(good: str, folder: str) -> None:
        shutil.copytree(good, folder + ".tmp")
        with open(os.path.join(folder + ".tmp", "assets.extra", "model_card.json"), "wb") as stream:
            stream.write(card)
        os.rename(folder + ".tmp", folder)
    return make


def with_large(name: str, size: int) -> Callable[[str, str], None]:
    def make(good: str, folder: str) -> None:
        shutil.copytree(good, folder + ".tmp")
        with open(os.path.join(folder + ".tmp", name), "wb") as stream:
            stream.truncate(size)              # it takes no room on the disk
        os.rename(folder + ".tmp", folder)
    return make


def make_dead(good: str, folder: str) -> None:
    os.makedirs(folder)
    # whoever reads the requests from it should answer them; closed by the script's end
    device = os.open("/dev/fuse", os.O_RDWR)
    options = "fd=%d,rootmode=40000,user_id=0,group_id=0" % device
    if libc().mount(b"dead", folder.encode(), b"fuse", 0, options.encode()):
        raise SystemExit("%s: %s" % (folder, os.strerror(ctypes.get_errno())))


def detach(folder: str) -> None:
    """Takes a mount away, if there is one, so that the folder can be removed."""
    libc().umount2(folder.encode(), MNT_DETACH)


def enter_namespace() -> bool:
    """Whether mounts can be made that nobody else sees."""
    return os.path.exists("/dev/fuse") and not libc().unshare(CLONE_NEWNS) and not libc().mount(
        b"none", b"/", None, MS_REC | MS_PRIVATE, None)


def libc() -> ctypes.CDLL:
    return ctypes.CDLL(None, use_errno=True)


@contextlib.contextmanager
def versions(good: str, number: Optional[int]) -> Iterator[str]:
    """A folder with the good version as `number`."""
    folder = os.path.join(FOLDER, "versions", "%d" % time.monotonic_ns())
    os.makedirs(folder)
    if number:
        shutil.copytree(good, os.path.join(folder, str(number)))
    try:
        yield folder
    finally:
        detach(os.path.join(folder, "2"))
        shutil.rmtree(folder, ignore_errors=True)


def status(server: Server, version: int) -> dict:
    try:
        with urllib.request.urlopen("http://127.0.0.1:%d/v1/models/albert/versions/%d"
                                    % (server.rest_port, version), timeout=10) as answer:
            return json.load(answer)["model_version_status"][0]
    except OSError:
        return {"state": "", "status": {"error_message": ""}}


def state(server: Server, version: int) -> str:
    return status(server, version)["state"]


def message(server: Server, version: int) -> str:
    return status(server, version)["status"]["error_message"]


def wait_for(ask: Callable[[], Any]) -> Any:
    """What `ask` gives as soon as it is something, or at last nothing."""
    end = time.monotonic() + SECONDS
    found = ask()
    while not found and time.monotonic() < end:
        time.sleep(0.1)
        found = ask()
    return found


if __name__ == "__main__":
    raise SystemExit(main())
