import math
import os

import pytest

from etl.common import cores
from etl.common.cores import group_quota, tell_libraries, usable_cores

VERSION_1 = "31 23 0:28 / /sys/fs/cgroup rw - tmpfs tmpfs rw\n" \
    "32 31 0:29 %s /sys/fs/cgroup/cpu rw - cgroup cgroup rw,cpu\n"
VERSION_2 = "30 23 0:26 %s /sys/fs/cgroup rw,nosuid - cgroup2 cgroup2 rw,nsdelegate\n"


def make(root, groups, mounts, **files):
    """A root with these lines in /proc/self, and these files in /sys/fs/cgroup."""
    for name, text in (("cgroup", groups), ("mountinfo", mounts)):
        path = root / "proc" / "self" / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text)
    for path, text in files.items():
        path = root / "sys" / "fs" / "cgroup" / path
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text)
    return str(root)


@pytest.mark.parametrize("groups, top, files, quota", [
    ("0::/\n", "/", {"cpu.max": "200000 100000\n"}, 2),                    # in a container of its own
    ("0::/\n", "/", {"cpu.max": "max 100000\n"}, math.inf),
    ("0::/\n", "/", {}, math.inf),                                          # the root group has no such file
    ("0::/a/b\n", "/", {"a/cpu.max": "150000 100000\n", "a/b/cpu.max": "max 100000\n"}, 1.5),
    ("0::/a/b\n", "/", {"a/cpu.max": "400000 100000\n", "a/b/cpu.max": "50000 100000\n"}, 0.5),
    ("0::/docker/x\n", "/docker/x", {"cpu.max": "300000 100000\n"}, 3),
    ("0::/elsewhere\n", "/docker/x", {"cpu.max": "300000 100000\n"}, 3),
    ("0::/../x\n", "/", {"cpu.max": "300000 100000\n"}, 3),
    ("0::/a\n", "/", {"a/cpu.max": "nonsense\n"}, math.inf)])
def test_version_2(tmp_path, groups, top, files, quota):
    assert group_quota(make(tmp_path, groups, VERSION_2 % top, **files)) == quota


@pytest.mark.parametrize("groups, top, files, quota", [
    ("4:memory:/x\n1:cpu:/\n0::/\n", "/", {"cpu/cpu.cfs_quota_us": "-1", "cpu/cpu.cfs_period_us": "100000"},
     math.inf),
    ("4:memory:/x\n1:cpu,cpuacct:/a\n0::/\n", "/",
     {"cpu/a/cpu.cfs_quota_us": "250000\n", "cpu/a/cpu.cfs_period_us": "100000\n"}, 2.5),
    ("1:cpu,cpuacct:/docker/x\n", "/docker/x",
     {"cpu/cpu.cfs_quota_us": "20000\n", "cpu/cpu.cfs_period_us": "10000\n"}, 2),
    ("1:cpuset:/a\n", "/", {"cpu/a/cpu.cfs_quota_us": "1000", "cpu/a/cpu.cfs_period_us": "1000"}, math.inf)])
def test_version_1(tmp_path, groups, top, files, quota):
    assert group_quota(make(tmp_path, groups, VERSION_1 % top, **files)) == quota


def test_without_proc(tmp_path):
    assert group_quota(str(tmp_path)) == math.inf


@pytest.mark.parametrize("mask, quota, found", [
    ({0, 1, 2, 3}, math.inf, 4), ({0, 1, 2, 3}, 1.5, 2), ({0, 1, 2, 3}, 2.0, 2), ({5}, 2.0, 1),
    ({0, 1}, 0.1, 1)])
def test_usable_cores(monkeypatch, mask, quota, found):
    monkeypatch.setattr(os, "sched_getaffinity", lambda process: mask)
    monkeypatch.setattr(cores, "group_quota", lambda: quota)
    assert usable_cores() == found


def test_libraries_are_told_unless_the_user_has(monkeypatch):
    monkeypatch.setattr(cores, "usable_cores", lambda: 3)
    monkeypatch.setenv("TF_NUM_INTEROP_THREADS", "7")
    for name in ("TF_NUM_INTRAOP_THREADS", "OPENBLAS_NUM_THREADS"):
        monkeypatch.delenv(name, raising=False)
    tell_libraries()
    assert [os.environ[name] for name in cores.THREAD_VARIABLES] == ["3", "7", "3"]
