"""What a process grows by with each further version that it loads, beside what the server estimates from the
files.

  python test/benchmark/model_memory.py --configs mini tiny base

Of each config a model of random weights is exported; then a new process loads it five times, each time
with its warm-up requests and a batch of 32 texts of 128 tokens, which leaves buffers behind. The first
load is not counted: it brings the library itself.
"""
import argparse
import os
import re
import subprocess
import sys

ROOT = os.path.dirname(os.path.dirname(os.path.dirname(os.path.abspath(__file__))))
sys.path[:0] = [ROOT, os.path.join(ROOT, "test", "helpers")]
os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "2")

NUM_LOADS = 5
FOLDER = os.path.join(ROOT, "output", "bench", "model_memory")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__,
                                     formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--configs", nargs="+", default=["mini", "tiny", "base"])
    parser.add_argument("--version", help="the folder of a version to measure, in this process")
    arguments = parser.parse_args()
    if arguments.version:
        measure(arguments.version)
        return
    print("| config | graph MB | weights MB | grows by MB | estimated MB |\n|---|---|---|---|---|",
          flush=True)
    for name in arguments.configs:
        print("| %s " % name, end="", flush=True)
        subprocess.run([sys.executable, "-W", "ignore", os.path.abspath(__file__), "--version",
                        export_model(name)], check=True)


def export_model(name: str) -> str:
    from exported import make_shipped_classifier
    from serving import export
    folder = os.path.join(FOLDER, name)
    if not os.path.isdir(os.path.join(folder, "1")):
        make_shipped_classifier(os.path.join(folder, "finetune"), name)
        with open(os.devnull, "w") as sys.stdout:
            export.main(["--checkpoint_dir", os.path.join(folder, "finetune"), "--output_dir", folder,
                         "--version", "1"])
        sys.stdout = sys.__stdout__
    return os.path.join(folder, "1")


def measure(version: str) -> None:
    import tensorflow.compat.v1 as tf
    from serving.saved_model import SavedModel
    from serving.service import model_memory, replay
    models, before = [], 0.0
    for _ in range(NUM_LOADS):
        models.append(SavedModel(version, tf.ConfigProto(intra_op_parallelism_threads=1)))
        replay.replay(version, models[-1])
        models[-1].run({"text_a": ["手机没信号怎么办" * 16] * 32, "text_b": [""] * 32})
        before = before or megabytes()
    graph, weights = model_memory.file_sizes(version)
    print("| %.1f | %.1f | %.0f | %.0f |" % (
        graph / 2 ** 20, weights / 2 ** 20, (megabytes() - before) / (NUM_LOADS - 1),
        model_memory.estimate(version) / 2 ** 20))
    for model in models:
        model.close()


def megabytes() -> float:
    with open("/proc/self/status") as stream:
        return int(re.search(r"VmRSS:\s+(\d+)", stream.read()).group(1)) / 1024


if __name__ == "__main__":
    main()
