"""Runs what this folder attacks the project with, one script after the other; exit status 0 when all of
it held.

  python test/checks/attack/run.py            # or some of them:  run.py rest grpc_port
"""
import glob
import os
import subprocess
import sys

HERE = os.path.dirname(os.path.abspath(__file__))
NOT_ATTACKS = {"run", "target"}


def main() -> int:
    names = sys.argv[1:] or sorted(
        {os.path.basename(path)[:-3] for path in glob.glob(os.path.join(HERE, "*.py"))} - NOT_ATTACKS)
    fallen = []
    for name in names:
        print("== " + name, flush=True)
        if subprocess.run([sys.executable, os.path.join(HERE, name + ".py")]).returncode:
            fallen.append(name)
    print("FELL: " + ", ".join(fallen) if fallen else "All held: " + ", ".join(names))
    return int(bool(fallen))


if __name__ == "__main__":
    raise SystemExit(main())
