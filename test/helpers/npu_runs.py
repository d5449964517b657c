"""Commands on the stand-in for npu_bridge, each a process of its own: importing its newer generation changes
tf.Session for the whole process."""
import json
import os
import subprocess
import sys

import tensorflow.compat.v1 as tf

ROOT = os.path.dirname(os.path.dirname(os.path.dirname(os.path.abspath(__file__))))
STAND_IN = os.path.join(ROOT, "test", "npu_stand_in")


# Runs estimator.pretrain for all flags and variables that it reads; writes status and errors of each.
IN_TURN = """
import contextlib, io, json, os, sys
from estimator import pretrain
variables, found = dict(os.environ), []
for words, more in json.load(sys.stdin):
    os.environ.clear()
    os.environ.update({name: value for name, value in dict(variables, **more).items() if value})
    with contextlib.redirect_stdout(io.StringIO()), contextlib.redirect_stderr(io.StringIO()) as errors:
        status = pretrain.main(words)
    found.append((status, errors.getvalue()))
json.dump(found, sys.stdout)
"""


class Run:
    """One command on the stand-in, and what the stand-in noted."""

    def __init__(self, folder, command, generation, flags, **environment):
        self.record = folder / ("record-%s-%d" % (flags["output_dir"].name,
                                                  len(list(folder.glob("record-*")))))
        variables = variables_of(generation, self.record)
        self.process = subprocess.Popen(
            [sys.executable, "-m", command] + words_of(flags), cwd=ROOT, universal_newlines=True,
            stdout=subprocess.PIPE, stderr=subprocess.PIPE,
            env={name: value for name, value in dict(variables, **environment).items() if value})

    def wait(self, status=0):
        try:
            self.output, self.errors = self.process.communicate(timeout=600)
        finally:
            self.process.kill()
        assert self.process.returncode == status, self.output + self.errors
        return self

    def noted(self, event):
        with open(str(self.record)) as stream:
            return [value for name, value in map(json.loads, stream) if name == event]


def variables_of(generation, record):
    """The environment of a command on one device."""
    return {"PATH": os.environ["PATH"], "HOME": os.environ.get("HOME", ""), "LC_ALL": "C.UTF-8",
            "PYTHONPATH": STAND_IN, "NPU_STAND_IN_GENERATION": generation,
            "NPU_STAND_IN_RECORD": str(record), "JOB_ID": "1", "ASCEND_DEVICE_ID": "0"}


def words_of(flags):
    return [word for name, value in flags.items() for word in ("--" + name, str(value))]


def pretraining(folder, output_dir, **changes):
    """Flags. All but the first run start from the values of the first: random ones depend on the ops
    before them."""
    if output_dir != "plain":
        changes.setdefault("init_checkpoint", folder / "plain" / "model.ckpt-0")
    return dict(dict(
        input_file=folder / "data", albert_config_file=folder / "config.json", output_dir=folder / output_dir,
        train_batch_size=8, eval_batch_size=4, num_train_steps=20, num_warmup_steps=2, learning_rate=0.002,
        optimizer="adamw", save_checkpoints_steps=10, log_steps=1, do_train="true", do_eval="true"),
                **changes)


def pretrain(folder, generation, output_dir, status=0, environment=None, **changes):
    flags = pretraining(folder, output_dir, **changes)
    return Run(folder, "estimator.pretrain", generation, flags, **(environment or {})).wait(status)


def pretrain_in_turn(folder, generation, output_dir, cases):
    """Commands of (changes, environment) that end before they train, all in one process: status and errors
    of each."""
    asked = [(words_of(pretraining(folder, output_dir, **changes)), environment)
             for changes, environment in cases]
    done = subprocess.run([sys.executable, "-c", IN_TURN], cwd=ROOT, input=json.dumps(asked).encode(),
                          stdout=subprocess.PIPE, stderr=subprocess.PIPE,
                          env=variables_of(generation, folder / "record-in-turn"))
    assert done.returncode == 0, done.stderr.decode()
    return json.loads(done.stdout.decode())


def pretrain_ranks(folder, generation, output_dir, size, status=0, environment=None, **changes):
    """The same on several devices of this host at once; the runs, by rank."""
    exchange = folder / ("exchange_%s" % output_dir)
    exchange.mkdir(exist_ok=True)
    for path in exchange.iterdir():            # words of ranks that were killed
        path.unlink()
    (folder / "table.json").write_text("{}")
    flags = pretraining(folder, output_dir, **changes)
    shared = dict(environment or {}, RANK_TABLE_FILE=str(folder / "table.json"), RANK_SIZE=str(size),
                  NPU_STAND_IN_EXCHANGE=str(exchange))
    runs = [Run(folder, "estimator.pretrain", generation, flags, **shared, RANK_ID=str(rank),
                ASCEND_DEVICE_ID=str(rank)) for rank in range(size)]
    return [run.wait(status) for run in runs]


def weights(output_dir, step):
    reader = tf.train.load_checkpoint(str(output_dir / ("model.ckpt-%d" % step)))
    return {name: reader.get_tensor(name) for name in reader.get_variable_to_shape_map()}
