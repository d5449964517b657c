"""Runs the scripts of a folder beside this file, one after the other; exit status 0 when all of it held.

  python test/checks/all_of.py attack                # or some of them:  all_of.py attack rest grpc_port
"""
import glob
import os
import subprocess
import sys

HERE = os.path.dirname(os.path.abspath(__file__))


def main() -> int:
    folder, *names = sys.argv[1:]
    names = names or sorted(filter(None, map(script_name, glob.glob(os.path.join(HERE, folder, "*.py")))))
    fallen = []
    for name in names:
        print("== " + name, flush=True)
        if subprocess.run([sys.executable, os.path.join(HERE, folder, name + ".py")]).returncode:
            fallen.append(name)
    print("FELL: " + ", ".join(fallen) if fallen else "All held: " + ", ".join(names))
    return int(bool(fallen))


def script_name(path: str) -> str:
    """Without folder and ending; empty for a file that others import."""
    with open(path, encoding="utf-8") as stream:
        return os.path.basename(path)[:-3] if '\nif __name__ == "__main__":' in stream.read() else ""


if __name__ == "__main__":
    raise SystemExit(main())
