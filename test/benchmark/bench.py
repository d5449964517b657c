"""All benchmarks one after the other: output/bench/report.html with bars, table.md, results.jsonl, and
<name>.txt as printed.

  python test/benchmark/bench.py --data path/to/afqmc --corpus 'corpus/*.txt' --only training_step,growth

A benchmark that fails is named; the others run all the same, and the exit status is 1. All of them take an
hour or two.
"""
import argparse
import os
import platform
import subprocess
import sys
import tempfile
import time
from typing import Dict, List, Sequence

import bench_report
import results
from bench_report import Outcome
from etl.common import files
from etl.common.cores import usable_cores

HERE = os.path.dirname(os.path.abspath(__file__))
ROOT = os.path.dirname(os.path.dirname(HERE))

Command = List[str]                            # a script of this folder and its arguments


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__,
                                     formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", default=os.path.join(ROOT, "estimator", "sample"),
                        help="folder with train.tsv and dev.tsv, questions in pairs")
    parser.add_argument("--corpus", default=os.path.join(ROOT, "etl", "sample", "*.txt"),
                        help="text for the sample builder")
    parser.add_argument("--vocab_file", help="WordPiece vocabulary for the sample builder")
    parser.add_argument("--task", default="sentence_pair",
                        help="of --data, as --task_name of estimator.finetune")
    parser.add_argument("--only", help="names of benchmarks, with commas between them")
    parser.add_argument("--output", default=os.path.join(ROOT, "output", "bench"), help="folder")
    arguments = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        commands = commands_of(arguments, folder)
        names = arguments.only.split(",") if arguments.only else list(commands)
        unknown = set(names) - set(commands)
        if unknown:
            parser.error("--only: no benchmark %s, only %s"
                         % (", ".join(sorted(unknown)), ", ".join(commands)))
        outcomes = run_all({name: commands[name] for name in names}, arguments.output)
    failed = [outcome.name for outcome in outcomes if outcome.failed]
    print("\nWrote report.html and table.md to %s%s" % (
        arguments.output, "; FAILED: " + ", ".join(failed) if failed else ""), flush=True)
    return int(bool(failed))


def commands_of(arguments: argparse.Namespace, folder: str) -> Dict[str, List[Command]]:
    """What each benchmark runs; files that it leaves go to `folder`."""
    questions = ["--data", os.path.join(arguments.data, "dev.tsv")]
    vocabulary = ["--vocab_file", arguments.vocab_file] if arguments.vocab_file else []
    steps = ["training_step.py", "--rounds"]
    return {
        "start_up": [["start_up.py"]],
        "training_step": [
            steps + ["5", "--config", "tiny", "--batch", "8", "--length", "128"],
            steps + ["3", "--config", "base", "--batch", "4", "--length", "128"],
            steps + ["3", "--config", "base", "--batch", "4", "--length", "512"],
            steps + ["3", "--config", "base", "--batch", "2", "--length", "512", "--share_real", "0.82"],
            steps + ["5", "--config", "tiny", "--batch", "8", "--length", "128", "--share_real", "0.379",
                     "--spread", "0.168"],],
        "serving_speed": [["serving_speed.py", *questions]],
        "onnx_speed": [["onnx_speed.py", *questions]],
        "server_load": [["server_load.py", *questions, "--seconds", "3", "--soak_seconds", "60"]],
        "etl_speed": [["etl_speed.py", "--data", arguments.corpus, "--megabytes", "20", *vocabulary]],
        "finetune_speed": [["finetune_speed.py", "--data", arguments.data, "--task", arguments.task,
                            "--train_examples", "800",
                            "--dev_examples", "1000", "--output", os.path.join(folder, "finetune_speed")]],
        "growth": [["growth.py"]],
    }


def run_all(commands: Dict[str, Sequence[Command]], output: str) -> List[Outcome]:
    """Runs all, and writes report and table after each, so that what there is can be read before the end."""
    os.makedirs(output, exist_ok=True)
    lines = os.path.join(output, "results.jsonl")
    if os.path.exists(lines):
        os.remove(lines)
    outcomes = []
    for number, (name, scripts) in enumerate(commands.items(), 1):
        print("\n[%d of %d] %s" % (number, len(commands), name), flush=True)
        begin = time.time()
        with open(os.path.join(output, name + ".txt"), "w", encoding="utf-8") as log:
            statuses = [run_script(script + ["--results", lines], log) for script in scripts]
        outcomes.append(Outcome(name, time.time() - begin, any(statuses)))
        if outcomes[-1].failed:
            print("FAILED: %s" % name, flush=True)
        write_report(output, results.read(lines), outcomes)
    return outcomes


def run_script(command: Command, log) -> int:
    """Runs a script of this folder; what it says goes to the console as it comes, and to `log`. Returns
    its status."""
    environment = dict(os.environ, PYTHONUNBUFFERED="1", TF_CPP_MIN_LOG_LEVEL="2")
    process = subprocess.Popen([sys.executable, "-W", "ignore", os.path.join(HERE, command[0])] + command[1:],
                               cwd=ROOT, env=environment, stdout=subprocess.PIPE, stderr=subprocess.STDOUT)
    for line in process.stdout:
        text = line.decode("utf-8", "replace")
        log.write(text)
        print(text, end="", flush=True)
    return process.wait()


def write_report(output: str, found: Sequence[results.Result], outcomes: Sequence[Outcome]) -> None:
    about = "%s, %d cores, Python %s; %s; load %.1f when written" % (
        platform.machine(), usable_cores(), platform.python_version(), time.strftime("%Y-%m-%d %H:%M"),
        os.getloadavg()[0])
    files.write_text(os.path.join(output, "report.html"), bench_report.make_page(found, outcomes, about))
    files.write_text(os.path.join(output, "table.md"), bench_report.make_table(found, outcomes, about))


if __name__ == "__main__":
    sys.exit(main())
