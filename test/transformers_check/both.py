"""Compares logits with Hugging Face's transformers in both directions, in each of the environments that are
given."""
import os
import shutil
import subprocess
import sys

HERE = os.path.dirname(os.path.abspath(__file__))


def main() -> None:
    output = os.path.join("output", "check_transformers")
    shutil.rmtree(output, ignore_errors=True)
    ours = [sys.executable, "-W", "ignore", os.path.join(HERE, "ours.py")]
    for environment in sys.argv[1:]:
        folder = os.path.join(output, os.path.basename(environment))
        theirs = [os.path.join(environment, "bin", "python"), os.path.join(HERE, "theirs.py")]
        for command in ([*ours, "write", folder], [*theirs, folder], [*ours, "check", folder]):
            subprocess.run(command, check=True, env=dict(os.environ, TF_CPP_MIN_LOG_LEVEL="2"))


if __name__ == "__main__":
    try:
        main()
    except subprocess.CalledProcessError as error:
        sys.exit(error.returncode)             # which has said why
