"""Asks the package index for the aarch64 wheel of each pin that make venv installs there.

  make check-aarch64

A pin without any wheel is taken as its source, if that needs no compiler: it holds no code but Python's, or
it is known to go on without what does not compile. The exit status is 1 when a pin can be had in neither way.
Nothing is installed; what is fetched, some 250 MB, is removed.
"""
import argparse
import glob
import os
import subprocess
import sys
import tarfile
import tempfile
import zipfile
from concurrent import futures
from typing import List, NamedTuple, Optional, Sequence

ROOT = os.path.dirname(os.path.dirname(os.path.dirname(os.path.abspath(__file__))))
WHEEL = ("--only-binary=:all:", "--python-version", "3.7", "--implementation", "cp",
         "--abi", "cp37m", "--abi", "abi3", "--abi", "none", "--platform", "manylinux2014_aarch64",
         "--platform", "manylinux_2_17_aarch64", "--platform", "manylinux_2_28_aarch64")
SOURCE = ("--no-binary=:all:",)
COMPILED = (".c", ".cc", ".cpp", ".cxx", ".pyx", ".rs", ".f90")
# Its setup.py installs the Python code alone where the C code does not compile.
DOES_WITHOUT = {"crcmod": "its setup goes on without a compiler"}
SECONDS = 300


class Finding(NamedTuple):
    """What there is of a pin; `missing`: nothing that fits."""
    pin: str
    text: str
    missing: bool = False


def main(argv: Optional[Sequence[str]] = None) -> int:
    argparse.ArgumentParser(description=__doc__,
                            formatter_class=argparse.RawDescriptionHelpFormatter).parse_args(argv)
    said = subprocess.run([os.path.join(ROOT, "requirements", "environment.sh"), "aarch64"], cwd=ROOT,
                          check=True, stdout=subprocess.PIPE).stdout
    pins = said.decode("utf-8").split()
    with futures.ThreadPoolExecutor(4) as pool:
        findings = list(pool.map(look_for, pins))
    for finding in findings:
        if finding.missing or "source" in finding.text:
            print("%-28s %s" % (finding.pin, finding.text))
    missing = [finding.pin for finding in findings if finding.missing]
    wheels = sum("wheel" == finding.text for finding in findings)
    print("%d pins: %d wheels for aarch64, %d sources that need no compiler, %d missing%s"
          % (len(pins), wheels, len(pins) - wheels - len(missing), len(missing),
             ": " + ", ".join(missing) if missing else ""))
    return int(bool(missing))


def look_for(pin: str) -> Finding:
    """A pin's wheel, else its source."""
    with tempfile.TemporaryDirectory() as folder:
        said = download(pin, WHEEL, folder)
        if not said:
            return Finding(pin, "wheel")
        said = download(pin, SOURCE, folder)
        if said:
            return Finding(pin, said, missing=True)
        archive, = glob.glob(os.path.join(folder, "*"))
        return judge(pin, code_in(archive))


def judge(pin: str, code: Sequence[str]) -> Finding:
    """Whether a source that holds this code can be installed without a compiler."""
    name = pin.split("==")[0]
    if not code:
        return Finding(pin, "source, in Python alone")
    if name in DOES_WITHOUT:
        return Finding(pin, "source: %s" % DOES_WITHOUT[name])
    return Finding(pin, "no wheel, and its source holds %s" % code[0], missing=True)


def download(pin: str, options: Sequence[str], folder: str) -> str:
    """Fetches a pin into a folder; returns "" or the last line that pip said of its failure."""
    done = subprocess.run(
        [sys.executable, "-m", "pip", "download", "--quiet", "--no-deps", "--disable-pip-version-check",
         "--dest", folder, *options, pin], stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, timeout=SECONDS)
    lines = done.stderr.decode("utf-8", "replace").strip().split("\n")
    return lines[-1] or "pip ended with status %d" % done.returncode if done.returncode else ""


def code_in(archive: str) -> List[str]:
    """The files of an archive that a compiler would have to turn into something."""
    if archive.endswith(".zip"):
        with zipfile.ZipFile(archive) as opened:
            names = opened.namelist()
    else:
        with tarfile.open(archive) as opened:
            names = opened.getnames()
    return [name for name in names if name.endswith(COMPILED)]


if __name__ == "__main__":
    raise SystemExit(main())
