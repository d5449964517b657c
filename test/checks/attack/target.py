"""A server to attack, over a tiny model made for it, and how one says what became of it."""
import os
import re
import signal
import subprocess
import sys
import time
import urllib.request
from typing import Optional, Tuple

ROOT = os.path.dirname(os.path.dirname(os.path.dirname(os.path.dirname(os.path.abspath(__file__)))))
FOLDER = os.path.join(ROOT, "output", "check_attack")
# The answers do not matter, so the model is the smallest there is.
MAKE_MODEL = "import sys; from exported import make_classifier; make_classifier(sys.argv[1])"


def export_model(versions_folder: str, version: int = 1) -> str:
    """Exports a tiny classifier as `version` below `versions_folder`, unless it is there; returns the
    version's folder."""
    paths = os.pathsep.join([ROOT, os.path.join(ROOT, "test", "helpers")])
    environment = dict(os.environ, TF_CPP_MIN_LOG_LEVEL="2", PYTHONPATH=paths)
    finetuned, exported = os.path.join(FOLDER, "finetune"), os.path.join(versions_folder, str(version))
    if not os.path.isdir(finetuned):
        subprocess.run([sys.executable, "-W", "ignore", "-c", MAKE_MODEL, finetuned], check=True,
                       env=environment)
    if not os.path.isdir(exported):
        subprocess.run([sys.executable, "-m", "serving.export", "--checkpoint_dir", finetuned, "--output_dir",
                        versions_folder, "--version", str(version)],
                       check=True, cwd=ROOT, env=environment, stdout=subprocess.DEVNULL)
    return exported


class Server:
    """`serving.server` over a tiny model, on free ports of this host, as a context.

    Attributes:
      rest_port, grpc_port, process, log_path: where standard output and standard error go.
    """

    def __init__(self, name: str, *flags: str, versions_folder: str = "", limit_files: int = 0) -> None:
        """`name` is that of the log; `limit_files`, if given, how many descriptors the server may have."""
        self._flags, self._limit_files = flags, limit_files
        self._versions_folder = versions_folder or os.path.join(FOLDER, "export")
        self.log_path = os.path.join(FOLDER, name + ".log")

    def __enter__(self) -> "Server":
        if not os.path.isdir(self._versions_folder):
            export_model(self._versions_folder)
        command = [sys.executable, "-m", "serving.server", "--model_base_path", self._versions_folder,
                   "--port", "0", "--rest_api_port", "0", *self._flags]
        if self._limit_files:
            command = ["sh", "-c", 'ulimit -n %d; exec "$@"' % self._limit_files, "sh", *command]
        with open(self.log_path, "wb") as log:
            self.process = subprocess.Popen(command, cwd=ROOT, stdout=subprocess.PIPE, stderr=log,
                                            env=dict(os.environ, TF_CPP_MIN_LOG_LEVEL="2"))
        line = self.process.stdout.readline().decode()
        ports = re.search(r"http://\S+?:(\d+).*:(\d+)$", line.strip())
        if not ports:
            raise SystemExit("the server did not start: %s; see %s" % (line, self.log_path))
        self.rest_port, self.grpc_port = map(int, ports.groups())
        return self

    def __exit__(self, *_: object) -> None:
        self.process.kill()
        self.process.wait()
        self.process.stdout.close()

    def is_alive(self) -> bool:
        return self.process.poll() is None

    def is_ready(self, seconds: float = 10) -> bool:
        """Whether REST answers within so many seconds."""
        try:
            with urllib.request.urlopen("http://127.0.0.1:%d/readyz" % self.rest_port,
                                        timeout=seconds) as answer:
                return answer.status == 200
        except OSError:
            return False

    def megabytes(self, peak: bool = False) -> float:
        """Resident memory now, or at its highest since the start."""
        with open("/proc/%d/status" % self.process.pid) as stream:
            return int(
                re.search(r"%s:\s+(\d+)" % ("VmHWM" if peak else "VmRSS"), stream.read()).group(1)) / 1024


def end(process: "subprocess.Popen[bytes]", seconds: float) -> Tuple[float, Optional[int]]:
    """Seconds until SIGTERM ended the process, and its exit status; None when it lives on after
    `seconds`."""
    begun = time.monotonic()
    process.send_signal(signal.SIGTERM)
    try:
        status = process.wait(seconds)
    except subprocess.TimeoutExpired:
        status = None
    return time.monotonic() - begun, status


class Outcome:
    """Counts and prints what held and what fell. `raise SystemExit(outcome.status())` ends a script."""

    def __init__(self) -> None:
        self._fallen = self._count = 0

    def tell(self, name: str, held: bool, detail: str = "") -> None:
        """One line: `held  gRPC: many elements from one value: +3 MB`."""
        self._count += 1
        self._fallen += not held
        print("%s  %s%s" % ("held" if held else "FELL", name, detail and ": " + detail), flush=True)

    def status(self) -> int:
        """0 when something was tried and all of it held."""
        return int(self._fallen > 0 or not self._count)
