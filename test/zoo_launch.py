"""A training in the model zoo's layout, on one device or several; what the *.sh beside it run.

  zoo_launch.py LAUNCHER STAGE KIND RANKS ARGUMENTS...

It takes the place of the published port's launchers, with their settings, and leaves log and results where
the model zoo's tooling looks for them:

  test/output/$ASCEND_DEVICE_ID/train_$ASCEND_DEVICE_ID.log    all that the trainer says
  test/output/$ASCEND_DEVICE_ID/train_${CaseName}_loss.txt     the losses, one a line
  test/output/$ASCEND_DEVICE_ID/${CaseName}.log                the results; train_results says what they mean
"""
import glob
import math
import os
import shutil
import sys
import time
from typing import Dict, List, NamedTuple, Sequence

from estimator.data.task_files import SUFFIXES
from estimator.launching import core_binding, launcher
from estimator.launching import plan as plans
from estimator.launching import processes
from estimator.launching.flags import HCCN_CONF, STOP_SECONDS, LaunchConfig
from estimator.launching.plan import value_of
from estimator.npu import devices, ranks
from etl.common.command_line import FALSE, TRUE, UserError, one_line

HERE = os.path.dirname(os.path.abspath(__file__))
OUTPUT = os.path.join(HERE, "output")
PERFORMANCE, ACCURACY = "perf", "acc"

# The zoo's names of its two entries, whatever config is trained.
NETWORKS = {"pretrain": "albert_xlarge_zh_ID2348_for_TensorFlow",
            "finetune": "albert_xlarge_zh_ID2355_for_TensorFlow"}

# Flags of a stage and of a kind of run, where they are not the trainer's own defaults. (Its learning rate for
# pretraining and its 3 epochs of 32 examples x 128 tokens are the port's.) There is no --num_warmup_steps:
# the trainer warms up for one step in 40, while the port's 12,500 were longer than its run.
SETTINGS = {
    ("pretrain", PERFORMANCE): ["--albert_config_file=xlarge", "--train_batch_size=4",
                                "--num_train_steps=100", "--log_steps=10", "--do_eval=false"],
    ("pretrain", ACCURACY): ["--albert_config_file=xlarge", "--train_batch_size=4",
                             "--num_train_steps=4000"],
    ("finetune", PERFORMANCE): ["--task_name=lcqmc", "--learning_rate=5e-6", "--num_train_epochs=1"],
    ("finetune", ACCURACY): ["--task_name=lcqmc", "--learning_rate=1e-6"],
}

USAGE = """usage: {launcher} --data_path=DIR [--ckpt_path=DIR] [--] [flags of python -m estimator.{stage}]

{paths}
Any flag of the trainer, as --flag=value or --flag value, overrides what is set here:
  {settings}
{ranks}Log, losses and results: test/output/$ASCEND_DEVICE_ID/. SIGTERM and Ctrl-C save a checkpoint first.
{again}
"""
PATHS = {"pretrain": """\
  --data_path   a folder of etl.build_pretrain, or one that holds tf*.tfrecord of 512 tokens and 51
                predictions; then vocab.txt is taken from there or --ckpt_path, in this order, and records
                held out from eval/tf*.tfrecord
  --ckpt_path   a folder that holds albert_model.ckpt, to start from; without it from random values
""", "finetune": """\
  --data_path   a folder that holds train.tsv and dev.tsv, or train.txt and dev.txt as LCQMC is published:
                text_a, text_b and label, separated by tabs; or .csv, .json or .jsonl
  --ckpt_path   a folder that holds albert_model.ckpt and vocab.txt, or a folder of estimator.pretrain, which
                says its config itself
"""}
RANKS = """\
The devices are RANK_SIZE (default 8) of this host, from 0 on; their table is made from /etc/hccn.conf, unless
RANK_TABLE_FILE names one. They share the folder of the checkpoints, which rank 0 writes. When one fails, all
are stopped.
"""
AGAIN = {ACCURACY: "The same command goes on with a run that was cut off.",
         PERFORMANCE: "Each run starts anew, unless it is given an --output_dir."}


class Case(NamedTuple):
    """What a launcher's name says."""
    launcher: str
    stage: str
    kind: str
    several: bool

    @property
    def network(self) -> str:
        return NETWORKS[self.stage]

    @property
    def settings(self) -> List[str]:
        return SETTINGS[self.stage, self.kind]

    @property
    def usage(self) -> str:
        return USAGE.format(launcher=self.launcher, stage=self.stage, paths=PATHS[self.stage],
                            settings=" ".join(self.settings), ranks=RANKS if self.several else "",
                            again=AGAIN[self.kind])


class Arguments(NamedTuple):
    """What follows a launcher's name. `flags` are the trainer's."""
    data_path: str
    ckpt_path: str
    flags: List[str]


def main(argv: Sequence[str]) -> int:
    case = Case(argv[0], argv[1], argv[2], argv[3] == "many")
    if {"-h", "--help"} & set(argv[4:]):
        print(case.usage, end="")
        return 0
    try:
        return launch(case, parse(case, argv[4:]))
    except (UserError, OSError) as error:
        print("%s: error: %s" % (case.launcher, one_line(error)), file=sys.stderr)
        return 2


def launch(case: Case, arguments: Arguments) -> int:
    """Trains and writes the results; returns the exit status."""
    begin = time.time()
    flags = case.settings + inputs(case, arguments)
    config = launch_config(case, arguments.flags)
    plan = plans.make(config, os.environ)
    size, device = plan.size, plan.places[0].log_number
    if (case.stage, case.kind, size) == ("pretrain", PERFORMANCE, 1) and _backend(arguments.flags) == "npu":
        flags.append("--iterations_per_loop=10")       # lines are between calls; one call of 100 has no pace
    flags += arguments.flags
    own_folder = os.path.join(OUTPUT, str(device), "model_%s_%dp_%s" % (case.stage, size, case.kind))
    output_dir = value_of(flags, "output_dir") or own_folder
    if case.kind == PERFORMANCE:
        remove_results(case, size, device)
        if output_dir == own_folder:
            shutil.rmtree(own_folder, ignore_errors=True)
    end = launcher.carry_out(plan, config,
                             ["estimator." + case.stage, *flags, "--output_dir=" + output_dir])
    if end.status:
        remove_results(case, size, device)
        print(launcher.explanation(case.launcher, end, plan, config), end="", file=sys.stderr)
        return end.status
    log = plans.log_of(OUTPUT, device)
    done = [line for line in processes.last_lines(log, 1000) if line.startswith("Nothing to train: ")]
    if done and _results_of(case, size, device):
        print("%s: this run was at its end already; its results stay. %s" % (case.launcher, done[0]))
        return 0
    import train_results                       # TensorFlow need not stay in memory beside the trainers
    return train_results.main([
        "--log", log, "--output_dir", output_dir, "--network", case.network, "--kind", case.kind,
        "--rank_size", str(size), "--seconds", str(round(time.time() - begin))])


# ---------------------------------------------------------------- arguments


def parse(case: Case, words: Sequence[str]) -> Arguments:
    """The launcher's own paths, and the trainer's flags as they are."""
    paths: Dict[str, str] = {}
    flags: List[str] = []
    rest = list(words)
    while rest:
        word = rest.pop(0)
        name, equals, value = word.partition("=")
        if name in ("--data_path", "--ckpt_path"):
            if not equals:
                if not rest:
                    raise UserError("%s wants a folder (see --help)" % name)
                value = rest.pop(0)
            if not value:
                raise UserError("%s is empty (see --help)" % name)
            if not os.path.isdir(value):
                raise UserError("%s: %s: no such folder" % (name, value))
            paths[name] = value[:-1] if value.endswith("/") and value != "/" else value
        elif name in ("--input_file", "--data_dir"):
            raise UserError("%s: give --data_path (see --help)" % name)
        elif word == "--":
            continue
        elif word.startswith("--"):
            flags.append(word)
            while rest and not rest[0].startswith("--"):       # the flag's values
                if equals:
                    raise UserError("unknown argument: %s (see --help)" % rest[0])
                flags.append(rest.pop(0))
        else:
            raise UserError("unknown argument: %s (see --help)" % word)
    if "--data_path" not in paths:
        raise UserError("--data_path must name the folder of the data (see --help)")
    return Arguments(paths["--data_path"], paths.get("--ckpt_path", ""), flags)


# ---------------------------------------------------------------- what the trainer starts from and reads


def inputs(case: Case, arguments: Arguments) -> List[str]:
    """The trainer's flags for data, checkpoint and vocabulary. The user's own come behind them, and win."""
    if case.stage == "pretrain":
        return _pretraining_checkpoint(arguments) + _pretraining_data(case, arguments)
    return _labelled_data(arguments) + _pretrained_model(arguments)


def _pretraining_checkpoint(arguments: Arguments) -> List[str]:
    folder = arguments.ckpt_path
    if not folder:
        return []
    if os.path.isfile(os.path.join(folder, "albert_model.ckpt.index")):
        return ["--init_checkpoint=%s/albert_model.ckpt" % folder]
    if os.path.isfile(os.path.join(folder, "model.json")):
        return ["--init_checkpoint=" + folder]
    raise UserError("--ckpt_path: %s: no albert_model.ckpt there" % folder)


def _pretraining_data(case: Case, arguments: Arguments) -> List[str]:
    folder = arguments.data_path
    if os.path.isfile(os.path.join(folder, "manifest.json")):  # it says sizes, vocabulary, what is held out
        return ["--input_file=" + folder]
    if not glob.glob(os.path.join(glob.escape(folder), "tf*.tfrecord")):
        raise UserError("--data_path: %s: no tf*.tfrecord there, and no manifest.json" % folder)
    flags = _vocabulary(arguments, "--data_path", [folder, arguments.ckpt_path])
    flags += ["--input_file=%s/tf*.tfrecord" % folder, "--max_seq_length=512", "--max_predictions_per_seq=51"]
    do_eval = value_of(arguments.flags, "do_eval").lower()
    if glob.glob(os.path.join(glob.escape(folder), "eval", "tf*.tfrecord")):
        flags.append("--eval_input_file=%s/eval/tf*.tfrecord" % folder)
    elif value_of(arguments.flags, "eval_input_file"):
        pass
    elif do_eval in TRUE:
        raise UserError("--do_eval: no eval/tf*.tfrecord in %s to evaluate on: give --eval_input_file, or "
                        "leave the flag out" % folder)
    elif case.kind == ACCURACY and not do_eval:
        flags.append("--do_eval=false")
        print("%s: no eval/tf*.tfrecord in %s: nothing is evaluated, and TrainAccuracy will be None"
              % (case.launcher, folder))
    return flags


def _vocabulary(arguments: Arguments, flag: str, folders: Sequence[str]) -> List[str]:
    """The first vocab.txt in the folders. Another one of as many entries would train, and be wrong."""
    if value_of(arguments.flags, "vocab_file"):
        return []
    for folder in folders:
        if folder and os.path.isfile(os.path.join(folder, "vocab.txt")):
            return ["--vocab_file=%s/vocab.txt" % folder]
    raise UserError("%s: %s: no vocab.txt there: give --vocab_file, the one that it was made with"
                  % (flag, folders[0]))


def _labelled_data(arguments: Arguments) -> List[str]:
    is_evaluated = value_of(arguments.flags, "do_eval").lower() not in FALSE
    for part in ("train", "dev") if is_evaluated else ("train",):
        names = [part + suffix for suffix in SUFFIXES]
        if not any(os.path.isfile(os.path.join(arguments.data_path, name)) for name in names):
            raise UserError("--data_path: %s: no %s there" % (arguments.data_path, " and no ".join(names)))
    return ["--data_dir=" + arguments.data_path]


def _pretrained_model(arguments: Arguments) -> List[str]:
    folder = arguments.ckpt_path
    if not folder:
        raise UserError("--ckpt_path must name the folder of a pretrained model (see --help)")
    if os.path.isfile(os.path.join(folder, "model.json")):     # it says config and vocabulary
        return ["--init_checkpoint=" + folder]
    if not os.path.isfile(os.path.join(folder, "albert_model.ckpt.index")):
        raise UserError("--ckpt_path: %s: no albert_model.ckpt there" % folder)
    return _vocabulary(arguments, "--ckpt_path", [folder]) + [
        "--init_checkpoint=%s/albert_model.ckpt" % folder, "--albert_config_file=xlarge"]


# ---------------------------------------------------------------- ranks and results


def launch_config(case: Case, flags: Sequence[str]) -> LaunchConfig:
    """The flags of the launch, from the environment."""
    given = os.environ.get("STOP_SECONDS") or STOP_SECONDS
    try:
        stop_seconds = float(given)
    except ValueError:
        stop_seconds = math.nan
    if not 0 <= stop_seconds < math.inf:
        raise UserError("STOP_SECONDS must be a number, at least 0; got %r" % given)
    if not case.several:
        device = os.environ["ASCEND_DEVICE_ID"]
        if not core_binding.is_number(device):
            raise UserError("ASCEND_DEVICE_ID must be a device's number, from 0 on, got %r" % device)
        return LaunchConfig(devices=device, log_dir=OUTPUT, stop_seconds=stop_seconds, bind_cores=False)
    reason = ("the devices exchange gradients through HCCL, which the CPU has not: use %s there"
              % case.launcher.replace("_8p_", "_1p_"))
    size, table = os.environ["RANK_SIZE"], os.environ.get("RANK_TABLE_FILE") or None
    if not core_binding.is_number(size) or int(size) < 2:
        raise UserError("RANK_SIZE must be at least 2, the devices of this host; got %s" % size)
    ranks.require_size("RANK_SIZE", int(size))
    if value_of(flags, "backend") == "cpu":
        raise UserError("--backend=cpu: " + reason)
    if table and not os.path.isfile(table):
        raise UserError("RANK_TABLE_FILE: %s: no such file" % table)
    if not table and not os.path.isfile(HCCN_CONF):
        raise UserError("RANK_TABLE_FILE must name the table of the devices, since there is no " + HCCN_CONF)
    if not devices.is_installed():
        raise UserError("no Ascend device can be used here (npu_bridge is not installed): " + reason)
    return LaunchConfig(devices="0-%d" % (int(size) - 1), rank_table=table, log_dir=OUTPUT,
                        stop_seconds=stop_seconds)


def _backend(flags: Sequence[str]) -> str:
    """npu or cpu: what the trainer will choose."""
    asked = value_of(flags, "backend") or devices.AUTO
    return asked if asked != devices.AUTO else devices.choose_backend(devices.AUTO)[0]


def _results_of(case: Case, size: int, device: int, losses: bool = False) -> List[str]:
    """The files of results of a case, whatever its batch size."""
    name = "%s_bs*_%dp_%s" % (case.network, size, case.kind)
    pattern = "train_%s_loss.txt" % name if losses else name + ".log"
    return glob.glob(os.path.join(glob.escape(OUTPUT), str(device), pattern))


def remove_results(case: Case, size: int, device: int) -> None:
    """Those of this case: losses and results."""
    for path in _results_of(case, size, device) + _results_of(case, size, device, losses=True):
        os.remove(path)


if __name__ == "__main__":
    raise SystemExit(main(sys.argv[1:]))
