"""What this machine has, and what will therefore be used or missing. Needs no environment: any Python 3
runs it.

  make doctor

Whatever can fail on import is asked for in a process of its own, so that a broken wheel is a line here. The
exit status is 1 when something that `make quickstart` needs is missing.
"""
import argparse
import glob
import json
import os
import platform
import re
import shutil
import socket
import subprocess
import sys
from typing import Dict, List, NamedTuple, Optional, Sequence, Tuple

ROOT = os.path.dirname(os.path.dirname(os.path.dirname(os.path.abspath(__file__))))
sys.path.insert(0, ROOT)

from etl.common.cores import usable_cores

PYTHON = os.path.join(ROOT, ".venv", "bin", "python")
SECONDS = 120                                  # that an import may take on a cold disk
GIGABYTE = 1 << 30
# for the quickstart; its environment alone takes 1.5 GB
LEAST_MEMORY, LEAST_DISK = 2 * GIGABYTE, 2 * GIGABYTE
CPU_FEATURES = ("sse4_2", "avx", "avx2", "fma", "avx512f")
PORTS = (8500, 8501)                           # of serving.server
DEVICE_VARIABLES = ("ASCEND_DEVICE_ID", "DEVICE_ID", "RANK_TABLE_FILE", "JOB_ID")

# Programs for the environment's own Python; each prints one JSON value.
INSTALLED = """
import json, pkg_resources
print(json.dumps({entry.key: entry.version for entry in pkg_resources.working_set}))"""
SEGMENTER = """
import json
from etl.text import words
fast = isinstance(words.load_segmenter(), words.FastSegmenter)
print(json.dumps("rjieba, jieba's words several times as fast" if fast else "jieba alone: rjieba is not installed"))"""
CRC32C = "import json, google_crc32c; print(json.dumps(google_crc32c.implementation))"
TENSORFLOW = """
import json, time
start = time.time()
import tensorflow.compat.v1 as tf
with tf.Session() as session:
    assert session.run(tf.constant(1.0)) == 1.0
print(json.dumps(["%s, loads in %.1f s" % (tf.__version__, time.time() - start), tf.test.is_gpu_available()]))"""
BACKEND = """
import json
from estimator.npu import devices
print(json.dumps(devices.choose_backend("auto")))"""
NPU_BRIDGE = """
import inspect, json
import npu_bridge.npu_init as bridge
names = list(inspect.signature(bridge.NPURunConfig.__init__).parameters)
print(json.dumps("installed; NPURunConfig takes %d arguments, %s" % (len(names) - 1, "precision_mode_v2 among them: release 1.13 or later"
                 if "precision_mode_v2" in names else "precision_mode_v2 is not among them: before release 1.13")))"""


class Finding(NamedTuple):
    """One line. `missing` says what to do, where something that is needed is not there."""
    name: str
    text: str
    missing: str = ""


def main(argv: Optional[Sequence[str]] = None) -> int:
    parser = argparse.ArgumentParser(description=__doc__,
                                     formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--python", default=PYTHON, help="of the environment to look at")
    arguments = parser.parse_args(argv)
    environment = look_at_environment(arguments.python)
    findings = look_at_machine() + environment + look_around()
    for finding in findings:
        print("%-12s %s%s" % (finding.name, finding.text,
                              "  ← " + finding.missing if finding.missing else ""))
    missing = [finding.name for finding in findings if finding.missing]
    print("\n%s" % ("Missing: " + ", ".join(missing) if missing
                    else "Nothing is missing. Next: make quickstart"))
    return int(bool(missing))


def look_at_machine() -> List[Finding]:
    cores, features = usable_cores(), cpu_features()
    memory, disk = available_memory(), shutil.disk_usage(ROOT).free
    return [
        Finding("machine", "%s, %d cores for this process%s" % (
            platform.machine(), cores, ", " + " ".join(features) if features else ""),
            "" if platform.machine() == "x86_64"
            else "TensorFlow 1.15.5 has wheels for x86_64 only; Ascend's hosts bring their own"),
        Finding("memory", "%.1f GB available" % (memory / GIGABYTE) if memory else "unknown",
                "the quickstart wants 2 GB" if memory and memory < LEAST_MEMORY else ""),
        Finding("disk", "%.1f GB free in %s" % (disk / GIGABYTE, ROOT),
                "2 GB are wanted" if disk < LEAST_DISK else ""),
    ]


def look_at_environment(python: str) -> List[Finding]:
    """What the environment holds, and what that means for building, training and serving."""
    if not os.path.exists(python):
        found = subprocess.run(["make", "--silent", "-C", ROOT, "python"], stdout=subprocess.PIPE,
                               stderr=subprocess.PIPE)
        said = (found.stdout if found.returncode == 0
                else found.stderr).decode("utf-8", "replace").strip().splitlines()
        chosen = [line for line in said if not re.match(r"make(\[\d+\])?: ",
                                                        line)]          # make's own last word says nothing
        return [Finding("python", chosen[0] if chosen else "no answer from make",
                        "" if found.returncode == 0 else chosen[-1] if chosen else "make is needed"),
                Finding("environment", "%s is not there" % python, "make venv")]
    version = ask(python, "import json, platform; print(json.dumps(platform.python_version()))")
    if not (version[0] or "").startswith("3.7."):
        return [Finding("python", "%s: %s" % (python, version[0] or version[1]),
                        "Python 3.7 is needed: rm -rf .venv; make venv")]
    found = [Finding("python", "%s, %s" % (version[0], python)), pins(python)]
    for name, program, what in (("words", SEGMENTER, "by %s"), ("records", CRC32C, "checksums in %s"),
                                ("tensorflow", TENSORFLOW, "%s")):
        value, error = ask(python, program)
        if name == "tensorflow" and value:
            value = value[0] + (", sees a GPU" if value[1] else ", sees no GPU")
        if name == "records" and value == "python":
            found.append(Finding(name, "checksums in plain Python, a hundred times slower",
                                 "pip install --force-reinstall google-crc32c"))
        else:
            found.append(Finding(name, what % value if value else error,
                                 "" if value else "rm -rf .venv; make venv"))
    backend, error = ask(python, BACKEND)
    found.append(Finding("training", "on the %s: %s" % (backend[0].upper(), backend[1]) if backend else error,
                         "" if backend else "see above"))
    bridge, error = ask(python, NPU_BRIDGE)
    found.append(Finding("npu_bridge", bridge or ("not installed; it comes with Ascend's CANN"
                                                  if "ModuleNotFoundError" in error else error)))
    return found


def pins(python: str) -> Finding:
    """The installed versions against constraints.txt."""
    installed, error = ask(python, INSTALLED)
    if installed is None:
        return Finding("packages", error, "rm -rf .venv; make venv")
    wanted = read_pins(os.path.join(ROOT, "constraints.txt"))
    if platform.machine() == "aarch64":        # the host brings its own TensorFlow
        wanted.pop("tensorflow", None)
        wanted.update(read_pins(os.path.join(ROOT, "requirements", "aarch64.txt")))
    other = ["%s %s instead of %s" % (name, installed[name], version) if name in installed
             else "%s is not installed" % name
             for name, version in wanted.items() if installed.get(name) != version]
    if other:
        return Finding("packages", "; ".join(other),
                       "make venv (on an Ascend host with a TensorFlow of its own: as you like)")
    return Finding("packages", "all %d as in constraints.txt" % len(wanted))


def look_around() -> List[Finding]:
    """What only some need: devices, ports, Java, Flink."""
    devices = sorted(glob.glob("/dev/davinci[0-9]*"))
    variables = ["%s=%s" % (name, os.environ[name]) for name in DEVICE_VARIABLES if os.environ.get(name)]
    taken = [port for port in PORTS if not is_free(port)]
    java = shutil.which("java")
    flink = os.path.exists(os.path.join(ROOT, ".venv-flink", "complete"))
    return [
        Finding("devices", ", ".join(devices + variables)
                or "no /dev/davinci*, none of %s set: no Ascend device" % ", ".join(DEVICE_VARIABLES)),
        Finding("ports", "%s are free for serving.server" % " and ".join(map(str, PORTS)) if not taken else
                "%s is taken: serving.server needs --port, --rest_api_port" % " and ".join(map(str, taken))),
        Finding("java", "%s: builds on Flink can start Beam's job server here" % java_version(java) if java
                else "none: a build on Flink needs a --job_endpoint; nothing else needs Java"),
        Finding("flink", "in .venv-flink, for make check-flink" if flink
                else "not here; make check-flink fetches one; a build on one machine needs none"),]


def ask(python: str, program: str) -> Tuple[Optional[object], str]:
    """What a program prints as JSON, and else the last thing it said."""
    environment = dict(os.environ, TF_CPP_MIN_LOG_LEVEL="3", PYTHONWARNINGS="ignore")
    try:
        done = subprocess.run([python, "-c", program], cwd=ROOT, env=environment, stdout=subprocess.PIPE,
                              stderr=subprocess.PIPE, timeout=SECONDS)
    except (OSError, subprocess.TimeoutExpired) as error:
        return None, str(error)
    if done.returncode == 0:
        return json.loads(done.stdout.decode("utf-8").splitlines()[-1]), ""
    lines = done.stderr.decode("utf-8", "replace").strip().splitlines()
    return None, lines[-1] if lines else "ended with status %d" % done.returncode


def read_pins(path: str) -> Dict[str, str]:
    """Versions by name, in the spelling of pkg_resources."""
    with open(path, encoding="utf-8") as stream:
        lines = [line.strip() for line in stream]
    return {name.lower().replace("_", "-"): version
            for name, version in (line.split("==") for line in lines if "==" in line)}


def cpu_features() -> List[str]:
    flags = re.search(r"^flags\s*:(.*)$", read("/proc/cpuinfo"), re.M)
    return [name for name in CPU_FEATURES if flags and name in flags.group(1).split()]


def available_memory() -> int:
    """Bytes that can be had now; no more than the control group's limit. 0 where nobody says."""
    found = re.search(r"^MemAvailable:\s+(\d+) kB", read("/proc/meminfo"), re.M)
    limit = re.match(r"\d+", read("/sys/fs/cgroup/memory.max")
                     or read("/sys/fs/cgroup/memory/memory.limit_in_bytes"))
    amounts = ([int(found.group(1)) * 1024] if found else []) + ([int(limit.group(0))] if limit else [])
    return min(amounts) if amounts else 0


def is_free(port: int) -> bool:
    with socket.socket() as asked:
        asked.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            asked.bind(("127.0.0.1", port))
        except OSError:
            return False
    return True


def java_version(java: str) -> str:
    done = subprocess.run([java, "-version"], stdout=subprocess.PIPE, stderr=subprocess.STDOUT)
    return (done.stdout.decode("utf-8", "replace").splitlines() or ["unknown"])[0]


def read(path: str) -> str:
    try:
        with open(path, encoding="utf-8") as stream:
            return stream.read()
    except OSError:
        return ""


if __name__ == "__main__":
    sys.exit(main())
