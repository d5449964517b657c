"""Peak memory of the sample builder's whole process tree against the size of its input: it must not grow.

  python test/benchmark/etl_memory.py --data 'corpus/*.txt' --megabytes 30 100 300

Repeats the text until it has the size asked for, builds with dupe_factor 10 and two processes, and prints a
row for each size: peak resident memory (sum over all processes, shared pages counted once each), the most
disk that runs took, and all work at once, records, time.
"""
import argparse
import glob
import os
import shutil
import subprocess
import sys
import tempfile
import time

ROOT = os.path.dirname(os.path.dirname(os.path.dirname(os.path.abspath(__file__))))
POLL_SECONDS = 0.5


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__,
                                     formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", default=os.path.join(ROOT, "etl", "sample", "*.txt"), help="text to repeat")
    parser.add_argument("--megabytes", type=int, nargs="+", default=[30, 100, 300])
    parser.add_argument("--flags", default="--dupe_factor 10 --direct_num_workers 2",
                        help="of etl.build_pretrain")
    arguments = parser.parse_args()
    text = b"\n\n".join(open(path, "rb").read().strip(b"\n") for path in sorted(glob.glob(arguments.data)))
    print("etl.build_pretrain %s\n%8s %14s %12s %12s %12s %8s %8s" % (
        arguments.flags, "MB text", "peak memory MB", "MB runs", "MB work", "MB records", "minutes", "KB/s"))
    for megabytes in arguments.megabytes:
        with tempfile.TemporaryDirectory(dir=os.environ.get("TMPDIR")) as folder:
            measure(text, megabytes, arguments.flags, folder)


def measure(text: bytes, megabytes: int, flags: str, folder: str) -> None:
    corpus, out = os.path.join(folder, "corpus.txt"), os.path.join(folder, "out")
    with open(corpus, "wb") as stream:
        while stream.tell() < megabytes * 1000000:
            stream.write(text + b"\n\n")
    begin = time.time()
    log = open(os.path.join(folder, "log"), "w")
    build = subprocess.Popen(
        [sys.executable, "-m", "etl.build_pretrain", "--input_file", corpus, "--output_dir", out]
        + flags.split(), cwd=ROOT, stdout=log, stderr=log)
    memory = work = runs = 0
    while build.poll() is None:
        memory, work = max(memory, tree_memory(build.pid)), max(work, folder_size(os.path.join(out, ".work")))
        runs = max([runs] + [folder_size(path)
                             for path in glob.glob(os.path.join(out, ".work", "*", "runs"))])
        time.sleep(POLL_SECONDS)
    if build.returncode:
        raise SystemExit(open(log.name).read()[-2000:])
    seconds = time.time() - begin
    print("%8d %14.0f %12.0f %12.0f %12.0f %8.1f %8.0f" % (
        megabytes, memory / 1e6, runs / 1e6, work / 1e6, folder_size(out) / 1e6, seconds / 60,
        os.path.getsize(corpus) / seconds / 1e3), flush=True)
    shutil.rmtree(out)


def tree_memory(root: int) -> int:
    """Proportional set size of a process and all below it, in bytes."""
    parents = {}
    for path in glob.glob("/proc/[0-9]*/stat"):
        try:
            with open(path) as stream:
                parents[int(path.split("/")[2])] = int(stream.read().rsplit(")", 1)[1].split()[1])
        except OSError:
            continue
    tree, grown = {root}, True
    while grown:
        grown = False
        for child, parent in parents.items():
            if parent in tree and child not in tree:
                tree.add(child)
                grown = True
    return sum(proportional_set_size(process) for process in tree)


def proportional_set_size(process: int) -> int:
    try:
        with open("/proc/%d/smaps_rollup" % process) as stream:
            return 1024 * sum(int(line.split()[1]) for line in stream if line.startswith("Pss:"))
    except OSError:
        return 0


def folder_size(folder: str) -> int:
    """Bytes on disk: less than the files' sizes where parts of them were freed."""
    sizes = 0
    for path, _, names in os.walk(folder):
        for name in names:
            try:
                sizes += 512 * os.stat(os.path.join(path, name)).st_blocks
            except OSError:                    # moved while we looked
                pass
    return sizes


if __name__ == "__main__":
    main()
