"""The wheel in an environment of its own, in an empty folder: the whole road on what it carries, in
two minutes.

  make check-wheel

The environment gets the pins of constraints.txt and the wheel, nothing else; the project's folder is out
of reach.
"""
import argparse
import json
import os
import subprocess
import sys
import tempfile
import time

ROOT = os.path.dirname(os.path.dirname(os.path.dirname(os.path.abspath(__file__))))
ROAD = (
    "etl.build_pretrain --runner DirectRunner --max_seq_length 64 --dupe_factor 1 --eval_fraction 0.1",
    "estimator.pretrain --albert_config_file mini --train_batch_size 8 --num_train_steps 4 "
    "--num_warmup_steps 1 --log_steps 2",
    "estimator.finetune --do_train --do_eval --max_seq_length 32 --train_batch_size 8 --num_train_epochs 0.1 "
    "--log_steps 5",
    "serving.export",
    "serving.predict --text_a 手机没信号怎么办 --text_b 手机搜不到网络怎么处理",
)


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__,
                                     formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("wheel", help="dist/*.whl")
    wheel = os.path.abspath(parser.parse_args().wheel)
    with tempfile.TemporaryDirectory(prefix="空 folder ") as folder:
        python = os.path.join(folder, "venv", "bin", "python")
        empty = os.path.join(folder, "empty")
        os.mkdir(empty)
        subprocess.check_call([sys.executable, "-m", "venv", os.path.join(folder, "venv")])
        pip = [python, "-m", "pip", "install", "--quiet", "--disable-pip-version-check"]
        subprocess.check_call(pip + ["-r", os.path.join(ROOT, "constraints.txt")])
        subprocess.check_call(pip + ["--no-deps", wheel])
        environment = {name: value for name, value in os.environ.items() if not name.startswith("PYTHON")}
        for command in ROAD:
            begin = time.time()
            done = subprocess.run([python, "-m"] + command.split(), cwd=empty, env=environment,
                                  stdout=subprocess.PIPE)
            print("%4.0f s  status %d  python -m %s" % (time.time() - begin, done.returncode, command),
                  flush=True)
            if done.returncode:
                return 1
        answer = json.loads(done.stdout.decode("utf-8").splitlines()[-1])
        print("answer: %s" % answer)
        page = subprocess.check_output(
            [python, "-c", "import os, serving; print(os.path.exists(os.path.join(os.path.dirname("
                           "serving.__file__), 'service', 'page.html')), serving.__file__)"], cwd=empty)
        print("page.html: %s" % page.decode("utf-8").strip())
        return int(not page.startswith(b"True") or "probabilities" not in answer)


if __name__ == "__main__":
    sys.exit(main())
