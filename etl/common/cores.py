"""How many cores this process may use: by its affinity mask (`taskset`, a cpuset) and by the CPU quota of its
control groups (a container's `--cpus`, a pod's limit)."""
import math
import os
from typing import Iterator, List

# Read by libraries that would otherwise count the machine's cores, or those of the mask.
THREAD_VARIABLES = ("TF_NUM_INTRAOP_THREADS", "TF_NUM_INTEROP_THREADS", "OPENBLAS_NUM_THREADS")


def usable_cores() -> int:
    """At least 1. A group with a quota of one and a half cores may use 2."""
    masked = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    return math.ceil(min(masked, group_quota()))


def tell_libraries() -> None:
    """Makes TensorFlow's sessions and NumPy's products use that many threads, unless their own variables are
    set. Must be called before they are loaded."""
    for name in THREAD_VARIABLES:
        os.environ.setdefault(name, str(usable_cores()))


def group_quota(root: str = "/") -> float:
    """The CPU quota of this process's control groups, version 1 or 2, in cores; infinite without a limit.

    Any level above the process may have a limit. `root` is the folder that contains proc and sys.
    """
    quotas = [math.inf]
    for folder in _group_folders(root):
        both = _numbers(os.path.join(folder, "cpu.max"))       # version 2; "max" in place of no limit
        if not both:
            both = [*_numbers(os.path.join(folder, "cpu.cfs_quota_us")),
                    *_numbers(os.path.join(folder, "cpu.cfs_period_us"))]
        if len(both) == 2 and min(both) > 0:   # the quota is -1 without a limit
            quotas.append(both[0] / both[1])
    return min(quotas)


def _group_folders(root: str) -> Iterator[str]:
    """Folders of this process's groups that may limit its CPU time, and of their parents."""
    groups = [line.split(":", 2)[1:] for line in _lines(os.path.join(root, "proc/self/cgroup"))]
    for line in _lines(os.path.join(root, "proc/self/mountinfo")):
        mount, _, system = line.partition(" - ")
        top, mounted = mount.split()[3:5]
        kind, _, options = system.split()[:3]
        wanted = {"cgroup": "cpu", "cgroup2": ""}.get(kind)    # version 2 has all controllers under no name
        if wanted is None or wanted and wanted not in options.split(","):
            continue
        for controllers, group in groups:
            if wanted in controllers.split(","):
                # In a container the mount is its own group, whose path may be given as seen from outside.
                is_below = (group + "/").startswith(top.rstrip("/") + "/")
                below = os.path.relpath(group, top) if is_below else "."
                parts = [part for part in below.split("/") if part not in (".", "..")]
                for depth in range(len(parts) + 1):
                    yield os.path.join(root, mounted.lstrip("/"), *parts[:depth])


def _numbers(path: str) -> List[int]:
    """The numbers in the file; none if it has another word, or does not exist."""
    words = " ".join(_lines(path)).split()
    return [int(word) for word in words] if all(word.lstrip("-").isdigit() for word in words) else []


def _lines(path: str) -> List[str]:
    try:
        with open(path, encoding="utf-8", errors="surrogateescape") as stream:
            return stream.read().splitlines()
    except OSError:
        return []
