import os
import subprocess
import sys

import pytest

ROOT = os.path.dirname(os.path.dirname(os.path.abspath(__file__)))
COMMANDS = ("etl.build_pretrain", "etl.build_vocab", "etl.show", "etl.beam.worker", "estimator.pretrain",
            "estimator.finetune", "estimator.checkpoints", "estimator.embed", "estimator.npu_check",
            "estimator.launch", "serving.export", "serving.predict", "serving.server")


@pytest.mark.parametrize("command", COMMANDS)
def test_help_waits_for_no_large_library(command):
    code = ("import contextlib, importlib, sys\n"
            "with contextlib.suppress(SystemExit): importlib.import_module(sys.argv[1]).main(['--help'])\n"
            "print(sorted({'tensorflow', 'apache_beam', 'jieba'} & set(sys.modules)))")
    out = subprocess.run([sys.executable, "-c", code, command], cwd=ROOT, stdout=subprocess.PIPE,
                         check=True).stdout
    assert b"python -m %s" % command.encode() in out and out.endswith(b"[]\n")
