"""The REST interface under fuzzing, against its own description: /openapi.json, by schemathesis.

  python test/checks/rest.py --schemathesis .venv-schemathesis/bin/schemathesis

The server must answer whatever it is sent, as its description says, and be as large and as ready afterwards.
"""
import argparse
import json
import os
import re
import subprocess
import sys
import tempfile
import urllib.request

ROOT = os.path.dirname(os.path.dirname(os.path.dirname(os.path.abspath(__file__))))
sys.path[:0] = [ROOT, os.path.join(ROOT, "test", "helpers")]
os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "2")

from exported import make_classifier
from serving import export

# As TensorFlow Serving, the server answers 400, not 405, to a method that a path does not know, and leaves
# unknown keys of a request unread. That columns must have the same number of rows cannot be said by a schema.
LEFT_OUT = "unsupported_method,negative_data_rejection,positive_data_acceptance"


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__,
                                     formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--schemathesis", required=True, help="the program")
    parser.add_argument("--max_examples", type=int, default=100, help="of each operation and phase")
    arguments = parser.parse_args()
    program = os.path.abspath(arguments.schemathesis)          # it runs in another folder
    with tempfile.TemporaryDirectory() as folder:
        make_classifier(os.path.join(folder, "finetune"), labels=("否", "是"))    # has all signatures
        if export.main(["--checkpoint_dir", os.path.join(folder, "finetune"), "--output_dir", folder,
                        "--version", "7"]):
            return 1
        server = subprocess.Popen([sys.executable, "-m", "serving.server", "--model_base_path", folder,
                                   "--port", "0", "--rest_api_port", "0", "--access_log", "false"],
                                  cwd=ROOT, stdout=subprocess.PIPE)
        try:
            url = re.search(r"http://\S+:\d+", server.stdout.readline().decode()).group(0)
            before = memory(url)
            # One worker: two threads that parse Python at once, as schemathesis does, are too much for some
            # releases of 3.11.
            status = subprocess.run([program, "run", url + "/openapi.json", "--exclude-checks", LEFT_OUT,
                                     "--max-examples", str(arguments.max_examples), "--workers", "1",
                                     "--request-timeout", "40"], cwd=folder).returncode
            with urllib.request.urlopen(url + "/readyz") as answer:
                print("After it: %s; memory %.0f MB, before %.0f MB"
                      % (json.load(answer), memory(url), before))
        finally:
            server.terminate()
            server.wait()
    return status


def memory(url: str) -> float:
    with urllib.request.urlopen(url + "/monitoring/prometheus/metrics") as answer:
        return float(re.search(rb"^process_resident_memory_bytes (\S+)", answer.read(), re.M).group(1)) / 1e6


if __name__ == "__main__":
    sys.exit(main())
