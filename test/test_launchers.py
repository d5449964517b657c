"""The launchers under test/, run from a folder that links to this one; in most runs a stand-in trains."""
import contextlib
import glob
import importlib.util
import json
import os
import re
import shutil
import signal
import subprocess
import sys
import time

import pytest

import tiny_training
from estimator.finetune import FinetuneConfig
from estimator.launching import rank_table
from estimator.pretraining.flags import PretrainConfig
from estimator.pretraining.job import with_sizes
from etl.common import files
from etl.common.command_line import parse

HERE = os.path.dirname(os.path.abspath(__file__))
PRETRAIN, FINETUNE = "albert_xlarge_zh_ID2348_for_TensorFlow", "albert_xlarge_zh_ID2355_for_TensorFlow"
LAUNCHERS = ("train_full_1p_pretrain.sh", "train_performance_1p_pretrain.sh", "train_full_1p_finetune.sh",
             "train_performance_1p_finetune.sh", "train_full_8p_pretrain.sh", "train_full_8p_finetune.sh")
KEYS = ["Network", "RankSize", "BatchSize", "DeviceType", "CaseName", "ActualFPS", "TrainingTime",
        "TrainAccuracy", "ActualLoss", "E2ETrainingTime"]
ENVIRONMENT = {name: value for name, value in os.environ.items()
               if not name.startswith(("RANK_", "ASCEND", "JOB_ID", "DEVICE_ID", "STOP_SECONDS"))}

# Says what it was given, then does what the environment asks for.
STAND_IN = """
import json, os, signal, sys, time
rank = os.environ.get("RANK_ID", "0")
def stop(number, frame):
    print("told to stop"), sys.exit(143)
signal.signal(signal.SIGTERM, signal.SIG_IGN if rank == os.environ.get("STUBBORN_RANK") else stop)
for argument in sys.argv[1:]:
    print("argument", argument)
print("process", os.getpid(), *("%s=%s" % (name, os.environ.get(name, "none")) for name in (
    "RANK_ID", "RANK_SIZE", "RANK_TABLE_FILE", "ASCEND_DEVICE_ID", "JOB_ID")))
if rank == os.environ.get("FAILING_RANK"):
    print("HCCL gave up"), sys.exit(7)
while os.environ.get("WAITING"):
    time.sleep(0.05)
out = [word for word in sys.argv if word.startswith("--output_dir=")][-1][len("--output_dir="):]
os.makedirs(out, exist_ok=True)
with open(os.path.join(out, "run_config.json"), "w") as stream:
    json.dump({"flags": {"train_batch_size": 4}}, stream)
print(os.environ.get("SAYS", """ + "'''" + """\\
step 1/20  loss 3.0000  masked_lm_loss 2.0000  lr 0.1
step 10/20  loss 2.0000  masked_lm_loss 1.5000  lr 0.1  50.0 examples/s  400 tokens/s  0:00 left
step 20/20  loss 1.5000  masked_lm_loss 1.0000  lr 0  100.0 examples/s  800 tokens/s  0:00 left""" + "'''" + """))
"""


def make_repository(folder):
    """A repository of links, so that its launchers write into it."""
    root = os.path.dirname(HERE)
    (folder / "test").mkdir(parents=True)
    for path in glob.glob(os.path.join(HERE, "*.sh")) + [os.path.join(HERE, "train_results.py"),
                                                         os.path.join(HERE, "zoo_launch.py")]:
        shutil.copy(path, str(folder / "test"))
    for package in ("albert_config", "etl", "estimator"):
        (folder / package).symlink_to(os.path.join(root, package))
    (folder / ".venv" / "bin").mkdir(parents=True)
    (folder / ".venv" / "bin" / "python").write_text('#!/bin/sh\nexec "%s" "$@"\n' % sys.executable)
    (folder / ".venv" / "bin" / "python").chmod(0o755)
    return folder


@pytest.fixture
def stand_in(tmp_path):
    """A repository where a stand-in trains, beside records, labelled pairs, the name of a checkpoint, and a
    table of eight devices."""
    write_pairs(tmp_path / "pairs")
    (tmp_path / "records").mkdir()
    (tmp_path / "records" / "tf_1.tfrecord").touch()
    (tmp_path / "checkpoint").mkdir()
    (tmp_path / "checkpoint" / "albert_model.ckpt.index").touch()
    for name in ("records", "checkpoint"):
        (tmp_path / name / "vocab.txt").touch()
    for size in (2, 4, 8):
        write_table(tmp_path / ("table%d.json" % size), size)
    repository = make_repository(tmp_path / "repository")
    estimator = repository / "estimator"
    originals = [path for path in estimator.resolve().iterdir() if path.name != "__pycache__"]
    estimator.unlink()
    estimator.mkdir()
    for path in originals:
        if path.name in ("pretrain.py", "finetune.py"):
            (estimator / path.name).write_text(STAND_IN)
        else:
            (estimator / path.name).symlink_to(path)
    (tmp_path / "bridge" / "npu_bridge").mkdir(parents=True)   # it is there; nothing imports it
    return repository


def write_table(path, size):
    devices = [(number, "10.1.0.%d" % number) for number in range(size)]
    files.write_json(str(path), rank_table.to_json(rank_table.make("t", [("10.0.0.1", devices)])))


def write_pairs(folder):
    folder.mkdir()
    for part, count in (("train", 12), ("dev", 4), ("test", 2)):
        words = tiny_training.WORDS
        (folder / (part + ".tsv")).write_text(
            "".join("%s\t%s\t%d\n" % (words[i % 7], words[i % 7 + i % 2], 1 - i % 2) for i in range(count)),
            encoding="utf-8")


def start(repository, launcher, *arguments, **environment):
    """A launcher that runs, in the folder of the data, so that paths are short."""
    return subprocess.Popen(
        ["bash", str(repository / "test" / launcher)] + [str(argument) for argument in arguments],
        cwd=str(repository.parent), env=dict(ENVIRONMENT, **environment), stdout=subprocess.PIPE,
        stderr=subprocess.PIPE, universal_newlines=True,
        preexec_fn=heed_signals)


def heed_signals():
    """A shell cannot trap what was ignored when it began: SIGINT in the background, SIGHUP under nohup."""
    for number in (signal.SIGINT, signal.SIGHUP):
        signal.signal(number, signal.SIG_DFL)


def launch(repository, launcher, *arguments, **environment):
    """Returns a launcher's exit status, output and errors."""
    process = start(repository, launcher, *arguments, **environment)
    output, errors = process.communicate(timeout=200)
    return process.returncode, output, errors


def call(repository, launcher, *arguments):
    """The exit status of what a launcher becomes, called in this process as its shell does."""
    spec = importlib.util.spec_from_file_location("zoo_launch", str(repository / "test" / "zoo_launch.py"))
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    script = (repository / "test" / launcher).read_text()
    words = re.search(r'^launch (\w+ \w+ \w+) "\$@"$', script, re.M).group(1).split()
    return module.main([launcher, *words, *arguments])


def log_of(repository, device=0):
    return (repository / "test" / "output" / str(device) / ("train_%d.log" % device)).read_text()


def results_of(repository, case_name, device=0):
    """The results of a case, by key; its losses must be there, too."""
    folder = repository / "test" / "output" / str(device)
    results = dict(line.split(" = ") for line in (folder / (case_name + ".log")).read_text().splitlines())
    assert (list(results) == KEYS and results["CaseName"] == case_name
            and results["DeviceType"] == os.uname().machine)
    losses = (folder / ("train_%s_loss.txt" % case_name)).read_text().split("\n")[:-1]
    assert losses[-1] == results["ActualLoss"]
    return results


def flags_given(repository, config_class, device=0):
    """What the trainer makes of the flags it was given."""
    arguments = [line[len("argument "):]
                 for line in log_of(repository, device).splitlines() if line.startswith("argument ")]
    return parse("trainer", "", config_class, arguments)


# ---------------------------------------------------------------- real training


@pytest.fixture(scope="module")
def trained(tmp_path_factory):
    """A repository, and beside it records with and without a manifest, a config, pairs, and a model of full
    pretraining."""
    folder = tmp_path_factory.mktemp("launchers")
    repository = make_repository(folder / "repository")
    tiny_training.write_build(folder / "build")
    shutil.copytree(str(folder / "build"), str(folder / "records"))
    (folder / "records" / "manifest.json").unlink()
    tiny_training.write_config(folder / "config.json")
    write_pairs(folder / "pairs")
    status, _, errors = launch(
        repository, "train_full_1p_pretrain.sh", "--data_path=build", "--albert_config_file=config.json",
        "--num_train_steps=5", "--log_steps=2", "--backend=cpu")
    assert (status, errors) == (0, "")
    return repository


def test_full_pretraining_of_a_build(trained):
    results = results_of(trained, PRETRAIN + "_bs4_1p_acc")
    assert results["Network"] == PRETRAIN and (results["RankSize"], results["BatchSize"]) == ("1", "4")
    assert (0 <= float(results["TrainAccuracy"]) <= 1 and float(results["ActualLoss"]) > 0
            and float(results["ActualFPS"]) > 0)
    assert float(results["TrainingTime"]) == pytest.approx(4000 / float(results["ActualFPS"]), rel=0.01)


def test_performance_of_pretraining_on_bare_records(trained):
    status, output, errors = launch(
        trained, "train_performance_1p_pretrain.sh", "--data_path", "records", "--max_seq_length", "8",
        "--max_predictions_per_seq=2", "--", "--albert_config_file", "config.json", "--num_train_steps", 4,
        "--train_batch_size", 5, "--backend", "cpu", ASCEND_DEVICE_ID="3")
    assert (status, errors) == (0, "")
    results = results_of(trained, PRETRAIN + "_bs5_1p_perf", device=3)
    assert results["BatchSize"] == "5" and results["TrainAccuracy"] == "None"
    assert "ActualFPS = %s\n" % results["ActualFPS"] in output
    assert os.path.exists(
        str(trained / "test" / "output" / "3" / "model_pretrain_1p_perf" / "model.ckpt-4.index"))


@pytest.mark.parametrize("launcher, kind, device, more", [
    ("train_full_1p_finetune.sh", "acc", 4, ("--backend=npu", "--num_train_epochs=2")),
    ("train_performance_1p_finetune.sh", "perf", 5, ("--backend=cpu",))])
def test_fine_tuning(trained, tmp_path, launcher, kind, device, more):
    """On an NPU, the stand-in for it, a loop takes all six steps of a run: there is one line, and no pace."""
    model = trained / "test" / "output" / "0" / "model_pretrain_1p_acc"
    for path in glob.glob(str(model / "model.ckpt-5.*")):
        shutil.copy(path, str(tmp_path / os.path.basename(path).replace("model.ckpt-5", "albert_model.ckpt")))
    shutil.copy(str(model / "vocab.txt"), str(tmp_path))
    status, _, errors = launch(
        trained, launcher, "--data_path=pairs", "--ckpt_path=%s" % tmp_path,
        "--albert_config_file=config.json", "--max_seq_length=8", "--train_batch_size=4", "--log_steps=1",
        *more, ASCEND_DEVICE_ID=str(device), PYTHONPATH=os.path.join(HERE, "npu_stand_in"))
    assert (status, errors) == (0, "")
    results = results_of(trained, "%s_bs4_1p_%s" % (FINETUNE, kind), device)
    assert 0 <= float(results["TrainAccuracy"]) <= 1
    assert 0 < float(results["ActualFPS"])
    assert "step %d/%d " % ((6, 6) if kind == "acc" else (3, 3)) in log_of(trained, device)


def test_the_trainers_own_error_is_passed_on(trained):
    status, _, errors = launch(trained, "train_full_1p_pretrain.sh", "--data_path=build", "--backend=cpu",
                               ASCEND_DEVICE_ID="6")
    assert status == 1 and errors.count("\n") == 1
    assert "error: the trainer ended with status 1; the last line of " in errors and (
        "train_6.log: estimator.pretrain: error: vocab_size is 21128 in xlarge" in errors)


def test_two_ranks_train_one_model_and_stop_and_go_on_together(trained, tmp_path):
    """On the stand-in for npu_bridge."""
    (tmp_path / "exchange").mkdir()
    arguments = ("train_full_8p_pretrain.sh", "--data_path=build", "--albert_config_file=config.json",
                 "--num_train_steps=60",
                 "--iterations_per_loop=1", "--save_checkpoints_steps=10", "--log_steps=5", "--backend=npu")
    write_table(trained.parent / "table.json", 2)
    environment = dict(RANK_SIZE="2", RANK_TABLE_FILE="table.json",
                       PYTHONPATH=os.path.join(HERE, "npu_stand_in"),
                       NPU_STAND_IN_GENERATION="M", NPU_STAND_IN_RECORD=str(tmp_path / "record"),
                       NPU_STAND_IN_EXCHANGE=str(tmp_path / "exchange"))
    process = start(trained, *arguments, **environment)
    deadline = time.time() + 200
    log = trained / "test" / "output" / "0" / "train_0.log"
    while not (process.poll() is not None or log.exists() and "step 5/60" in log.read_text()):
        assert time.time() < deadline
        time.sleep(0.05)
    process.terminate()
    _, errors = process.communicate(timeout=200)
    assert process.returncode == 143 and "Stopped by SIGTERM after step " in errors
    for path in (tmp_path / "exchange").iterdir():
        path.unlink()
    status, _, errors = launch(trained, *arguments, **environment)
    assert (status, errors) == (0, "")
    assert all("Resuming from step" in log_of(trained, device) for device in (0, 1))
    assert results_of(trained, PRETRAIN + "_bs4_2p_acc")["RankSize"] == "2"


# ---------------------------------------------------------------- settings and arguments


@pytest.mark.parametrize("launcher, steps",
                         [("train_performance_1p_pretrain.sh", 100), ("train_full_1p_pretrain.sh", 4000)])
def test_settings_of_pretraining(stand_in, launcher, steps):
    status, _, errors = launch(stand_in, launcher, "--data_path=records")
    assert (status, errors) == (0, "")
    config = with_sizes(flags_given(stand_in, PretrainConfig), 10 ** 6)
    assert (config.albert_config_file, config.train_batch_size,
            config.learning_rate) == ("xlarge", 4, 0.00176)
    assert (config.max_seq_length, config.max_predictions_per_seq, config.num_train_steps) == (512, 51, steps)
    assert 0 < config.num_warmup_steps < steps / 10
    assert config.input_file == ("records/tf*.tfrecord",) and not config.do_eval
    assert config.vocab_file == "records/vocab.txt" and config.init_checkpoint is None


@pytest.mark.parametrize("launcher, rate, epochs", [
    ("train_performance_1p_finetune.sh", 5e-6, 1), ("train_full_1p_finetune.sh", 1e-6, 3)])
def test_settings_of_fine_tuning(stand_in, launcher, rate, epochs):
    status, _, errors = launch(stand_in, launcher, "--data_path=pairs", "--ckpt_path", "checkpoint/")
    assert (status, errors) == (0, "")
    config = flags_given(stand_in, FinetuneConfig)
    assert (config.task_name, config.train_batch_size, config.max_seq_length) == ("lcqmc", 32, 128)
    assert (config.learning_rate,
            config.num_train_epochs) == (rate, epochs) and config.do_train and config.do_eval
    assert (config.data_dir, config.init_checkpoint) == ("pairs", "checkpoint/albert_model.ckpt")
    assert (config.albert_config_file, config.vocab_file) == ("xlarge", "checkpoint/vocab.txt")


def test_lcqmc_as_it_is_published_under_the_ports_name(stand_in):
    for part in ("train", "dev", "test"):
        (stand_in.parent / "pairs" / (part + ".tsv")).rename(stand_in.parent / "pairs" / (part + ".txt"))
    status, _, errors = launch(stand_in, "train_full_1p_finetune.sh", "--data_path=pairs",
                               "--ckpt_path=checkpoint", "--task_name=lcqmc_pair")
    assert (status, errors) == (0, "")
    config = flags_given(stand_in, FinetuneConfig)
    assert (config.task_name, config.data_dir) == ("lcqmc_pair", "pairs")


def test_examples_held_out_are_wanted_unless_nothing_is_evaluated(stand_in):
    (stand_in.parent / "pairs" / "dev.tsv").unlink()
    arguments = ("train_full_1p_finetune.sh", "--data_path=pairs", "--ckpt_path=checkpoint")
    status, _, errors = launch(stand_in, *arguments)
    assert status == 2 and "error: --data_path: pairs: no dev.tsv and no dev.csv and no " in errors
    status, _, errors = launch(stand_in, *arguments, "--do_eval", "false")
    assert (status, errors) == (0, "")


@pytest.mark.parametrize("flag", [["--do_eval=true"], ["--do_eval"], ["--do_eval", "--num_train_steps=8"]])
def test_an_evaluation_without_records_held_out_is_refused(stand_in, flag):
    status, output, errors = launch(stand_in, "train_full_1p_pretrain.sh", "--data_path=records", *flag)
    assert (status, output) == (2, "") and errors == (
        "train_full_1p_pretrain.sh: error: --do_eval: no eval/tf*.tfrecord in records to evaluate on: give "
        "--eval_input_file, or leave the flag out\n")


def test_what_lies_beside_records_and_checkpoint_is_taken_and_flags_win(stand_in):
    folder = stand_in.parent
    (folder / "records" / "eval").mkdir()
    (folder / "records" / "eval" / "tf_1.tfrecord").touch()
    launch(stand_in, "train_full_1p_pretrain.sh", "--data_path=records", "--ckpt_path=checkpoint",
           "--learning_rate", "1e-4", "--num_train_steps=8", "--output_dir=a model")
    config = flags_given(stand_in, PretrainConfig)
    assert (config.eval_input_file, config.vocab_file) == (("records/eval/tf*.tfrecord",),
                                                           "records/vocab.txt")
    assert (config.init_checkpoint, config.do_eval) == ("checkpoint/albert_model.ckpt", True)
    assert (config.learning_rate, config.num_train_steps, config.output_dir) == (1e-4, 8, "a model")


def test_one_device_asks_for_no_other(stand_in):
    launch(stand_in, "train_full_1p_pretrain.sh", "--data_path=records", RANK_SIZE="8", RANK_TABLE_FILE="t",
           RANK_ID="3")
    assert (" RANK_ID=none RANK_SIZE=1 RANK_TABLE_FILE=none ASCEND_DEVICE_ID=0 JOB_ID=10087"
            in log_of(stand_in))


@pytest.mark.parametrize("launcher", LAUNCHERS)
@pytest.mark.parametrize("arguments, message", [
    ([], "--data_path must name the folder of the data (see --help)"),
    (["--data_path"], "--data_path wants a folder (see --help)"),
    (["--data_path="], "--data_path is empty (see --help)"),
    (["--data_path=nowhere"], "--data_path: nowhere: no such folder"),
    (["--data_path=records", "--ckpt_path", "nowhere"], "--ckpt_path: nowhere: no such folder"),
    (["records"], "unknown argument: records (see --help)"),
    (["--data_path=records", "--learning_rate=1", "2"], "unknown argument: 2 (see --help)"),
    (["--data_path=records", "-x"], "unknown argument: -x (see --help)"),
    (["--data_path=records", "--input_file", "a"], "--input_file: give --data_path (see --help)"),
    (["--data_path=repository", "--ckpt_path=checkpoint"], "--data_path: repository: no "),
    (["--data_path=both", "--ckpt_path=repository"], "--ckpt_path: repository: no albert_model.ckpt there"),
])
def test_a_mistake_is_one_line(stand_in, launcher, arguments, message, monkeypatch, capsys):
    shutil.copytree(str(stand_in.parent / "records"), str(stand_in.parent / "both"))
    for name in ("train.tsv", "dev.tsv"):
        (stand_in.parent / "both" / name).touch()
    monkeypatch.chdir(stand_in.parent)
    status = call(stand_in, launcher, *arguments)
    output, errors = capsys.readouterr()
    assert (status, output) == (2, "") and errors.startswith("%s: error: %s" % (launcher, message)), errors
    assert errors.count("\n") == 1 and not (stand_in / "test" / "output").exists()


@pytest.mark.parametrize("launcher", LAUNCHERS)
def test_a_mistake_ends_the_launcher(stand_in, launcher):
    assert launch(stand_in, launcher, "--data_path=nowhere") == (
        2, "", "%s: error: --data_path: nowhere: no such folder\n" % launcher)


@pytest.mark.parametrize("launcher, data, flag",
                         [("train_full_1p_pretrain.sh", "records", "--data_path: records"),
                          ("train_full_1p_finetune.sh", "pairs", "--ckpt_path: checkpoint")])
def test_no_vocabulary_is_guessed(stand_in, launcher, data, flag):
    for name in ("records", "checkpoint"):
        (stand_in.parent / name / "vocab.txt").unlink()
    status, _, errors = launch(stand_in, launcher, "--data_path", data, "--ckpt_path=checkpoint")
    assert (status == 2 and errors == "%s: error: %s: no vocab.txt there: give --vocab_file, the one that it "
            "was made with\n" % (launcher, flag))
    status, _, errors = launch(stand_in, launcher, "--data_path", data, "--ckpt_path=checkpoint",
                               "--vocab_file=mine.txt")
    config = flags_given(stand_in, PretrainConfig if data == "records" else FinetuneConfig)
    assert (status, errors, config.vocab_file) == (0, "", "mine.txt")


def test_fine_tuning_needs_a_checkpoint(stand_in):
    status, _, errors = launch(stand_in, "train_full_1p_finetune.sh", "--data_path=pairs")
    assert (status == 2
            and "error: --ckpt_path must name the folder of a pretrained model (see --help)\n" in errors)


@pytest.mark.parametrize("launcher", LAUNCHERS)
def test_help(stand_in, launcher):
    status, output, errors = launch(stand_in, launcher, "--help")
    assert (status, errors) == (0, "") and output.startswith("usage: %s --data_path=DIR" % launcher)


# ---------------------------------------------------------------- how a run ends


def test_results_come_with_a_training_go_with_a_failure_and_stay_when_nothing_is_left_to_train(stand_in):
    case_name = PRETRAIN + "_bs4_1p_acc"
    arguments = ("train_full_1p_pretrain.sh", "--data_path=records")
    launch(stand_in, *arguments)
    results = results_of(stand_in, case_name)
    assert (results["ActualFPS"], results["TrainingTime"],
            results["ActualLoss"]) == ("100.00", "40.00", "1.5000")
    status, output, errors = launch(stand_in, *arguments, SAYS="Nothing to train: out is at step 20 of 20")
    assert ((status, errors) == (0, "")
            and "its results stay. Nothing to train: out is at step 20 of 20" in output)
    assert results_of(stand_in, case_name) == results
    status, _, errors = launch(stand_in, *arguments, SAYS="Stopped by SIGTERM after step 3 of 20")
    assert status == 143 and "Stopped by SIGTERM after step 3 of 20" in errors
    assert sorted(os.listdir(str(stand_in / "test" / "output" / "0"))) == ["model_pretrain_1p_acc",
                                                                           "train_0.log"]


def test_a_training_without_a_line_of_progress_has_no_results(stand_in):
    status, _, errors = launch(stand_in, "train_full_1p_pretrain.sh", "--data_path=records", SAYS="well")
    assert status == 1 and errors.count("\n") == 1 and "train_0.log: no line of progress in it" in errors


def test_a_training_too_short_for_a_pace_has_that_of_the_whole_launch(stand_in):
    status, _, errors = launch(stand_in, "train_full_1p_finetune.sh", "--data_path=pairs",
                               "--ckpt_path=checkpoint", SAYS="step 6/6  loss 3.0  lr 0")
    assert (status, errors) == (0, "")
    results = results_of(stand_in, FINETUNE + "_bs4_1p_acc")
    assert float(results["ActualFPS"]) == 24 / max(1, int(results["E2ETrainingTime"]))


@pytest.mark.parametrize("number, status",
                         [(signal.SIGTERM, 143), (signal.SIGINT, 130), (signal.SIGHUP, 129)])
def test_a_signal_asks_the_trainer_to_stop(stand_in, number, status):
    process = start(stand_in, "train_full_1p_pretrain.sh", "--data_path=records", WAITING="1")
    await_logs(stand_in, [0])
    process.send_signal(number)
    _, errors = process.communicate(timeout=200)
    assert process.returncode == status
    assert errors.startswith("train_full_1p_pretrain.sh: error: stopped by a signal; the last line of ")
    assert errors.endswith("train_0.log: told to stop\n")
    assert not running(stand_in)


# ---------------------------------------------------------------- several devices


def launch_ranks(stand_in, *arguments, **environment):
    return launch(stand_in, "train_full_8p_pretrain.sh", "--data_path=records", "--backend=npu", *arguments,
                  **ranks_environment(stand_in, **environment))


def ranks_environment(stand_in, **environment):
    """The package of the devices can be found, and a table is there."""
    environment.setdefault("RANK_SIZE", "8")
    return dict(dict(RANK_TABLE_FILE="table%s.json" % environment["RANK_SIZE"],
                     PYTHONPATH=str(stand_in.parent / "bridge")), **environment)


def await_logs(repository, devices):
    """Waits until the stand-in of each device has said who it is; it has set its traps before."""
    deadline = time.time() + 200
    while not all(glob.glob(str(repository / "test" / "output" / str(device) / "*.log")) and
                  "process" in log_of(repository, device) for device in devices):
        assert time.time() < deadline
        time.sleep(0.05)


def running(repository):
    """The processes that were started for this repository, but for those that nobody has waited for."""
    found = []
    for path in glob.glob("/proc/[0-9]*"):
        with contextlib.suppress(OSError), open(path + "/environ", "rb") as stream:
            if os.fsencode(str(repository)) in stream.read():
                found.append(path)
    return found


def test_eight_ranks_have_devices_and_logs_of_their_own_and_one_folder(stand_in):
    status, _, errors = launch_ranks(stand_in)
    assert (status, errors) == (0, "")
    for rank in range(8):
        assert " RANK_ID=%d RANK_SIZE=8 RANK_TABLE_FILE=%s/table8.json ASCEND_DEVICE_ID=%d JOB_ID=10087\n" % (
            rank, stand_in.parent, rank) in log_of(stand_in, rank)
        config = flags_given(stand_in, PretrainConfig, rank)
        assert config.output_dir == str(stand_in / "test" / "output" / "0" / "model_pretrain_8p_acc")
        assert (config.backend, config.num_train_steps, config.train_batch_size) == ("npu", 4000, 4)
    results = results_of(stand_in, PRETRAIN + "_bs4_8p_acc")
    assert (results["RankSize"], results["ActualFPS"], results["TrainingTime"]) == ("8", "100.00", "320.00")


def test_a_rank_that_fails_stops_all_even_one_that_will_not(stand_in):
    begin = time.time()
    status, _, errors = launch_ranks(stand_in, RANK_SIZE="4", FAILING_RANK="1", STUBBORN_RANK="2",
                                     WAITING="1", STOP_SECONDS="1")
    assert status == 7 and time.time() - begin < 20
    lines = errors.splitlines()
    assert (lines[0].startswith("train_full_8p_pretrain.sh: the end of ")
            and lines[0].endswith("test/output/1/train_1.log:"))
    assert lines[-2] == "HCCL gave up"
    assert lines[-1] == ("train_full_8p_pretrain.sh: error: rank 1 on device 1 ended with status 7, and the "
                         "others were stopped")
    assert not running(stand_in)
    assert not glob.glob(str(stand_in / "test" / "output" / "*" / "*_loss.txt"))


def test_a_signal_stops_all_ranks(stand_in):
    process = start(stand_in, "train_full_8p_pretrain.sh", "--data_path=records", "--backend=npu",
                    **ranks_environment(stand_in, RANK_SIZE="2", WAITING="1"))
    await_logs(stand_in, [0, 1])
    process.terminate()
    process.communicate(timeout=200)
    assert process.returncode == 143
    assert not running(stand_in)
    assert log_of(stand_in, 0).endswith("told to stop\n")      # the other may be killed before it says so


def test_nothing_is_left_of_a_launcher_that_is_killed(stand_in):
    process = start(stand_in, "train_full_8p_pretrain.sh", "--data_path=records", "--backend=npu",
                    **ranks_environment(stand_in, RANK_SIZE="2", WAITING="1", STUBBORN_RANK="1"))
    await_logs(stand_in, [0, 1])
    process.kill()
    process.communicate(timeout=200)           # the keeper may still be at work
    deadline = time.time() + 60
    while running(stand_in):
        assert time.time() < deadline
        time.sleep(0.05)


def test_the_others_are_killed_once_the_first_has_saved(stand_in):
    process = start(stand_in, "train_full_8p_pretrain.sh", "--data_path=records", "--backend=npu",
                    **ranks_environment(stand_in, RANK_SIZE="2", WAITING="1", STUBBORN_RANK="1",
                                        STOP_SECONDS="100"))
    await_logs(stand_in, [0, 1])
    process.terminate()
    process.communicate(timeout=200)
    assert process.returncode == 143 and log_of(stand_in, 0).endswith("told to stop\n")
    assert not running(stand_in)


@pytest.mark.parametrize("environment, arguments, message", [
    ({}, [], "RANK_TABLE_FILE must name the table of the devices, since there is no /etc/hccn.conf"),
    ({"RANK_TABLE_FILE": "nowhere"}, [], "RANK_TABLE_FILE: nowhere: no such file"),
    ({"RANK_TABLE_FILE": "table8.json"}, ["--backend", "cpu"],
     "--backend=cpu: the devices exchange gradients through HCCL"),
    ({"RANK_TABLE_FILE": "table8.json"}, ["--backend=auto"], "no Ascend device can be used here"),
    ({"RANK_TABLE_FILE": "table8.json", "RANK_SIZE": "1"}, [],
     "RANK_SIZE must be at least 2, the devices of this host; got 1"),
    ({"RANK_TABLE_FILE": "table8.json", "RANK_SIZE": "3"}, [],
     "RANK_SIZE must be 1, 2, 4, 8 or a multiple of 8"),
    ({"RANK_TABLE_FILE": "table8.json", "RANK_SIZE": "\u00b2"}, [], "RANK_SIZE must be at least 2, "),
    ({"STOP_SECONDS": "soon"}, [], "STOP_SECONDS must be a number, at least 0; got 'soon'"),
    ({"STOP_SECONDS": "-1"}, [], "STOP_SECONDS must be a number, at least 0; got '-1'")])
def test_several_devices_are_refused_where_they_cannot_be_had(stand_in, environment, arguments, message):
    status, _, errors = launch(stand_in, "train_full_8p_pretrain.sh", "--data_path=records", *arguments,
                               **environment)
    assert status == 2 and errors.startswith(
        "train_full_8p_pretrain.sh: error: " + message) and errors.count("\n") == 1
    assert not (stand_in / "test" / "output").exists()


# ---------------------------------------------------------------- results and environment

LOG = """Model xlarge on cpu (requested)
step 1/50  loss 9.0000  masked_lm_loss 8.0000  sentence_order_loss 1.0000  lr 0.001
step 10/50  loss 8.0000  masked_lm_loss 7.2000  sentence_order_loss 0.8000  lr 0.001  5.0 examples/s  640 tokens/s  0:32 left
step 20/50  loss 7.0000  masked_lm_loss 6.3000  sentence_order_loss 0.7000  lr 0.001  20.0 examples/s  2560 tokens/s  0:06 left
step 25/50  loss 6.5000  masked_lm_loss 5.8000  sentence_order_loss 0.7000  lr 0.001  10.0 examples/s  1280 tokens/s  0:10 left
Step 25, 5 records held out:
  masked_lm_loss 6.4000 (unigram 6.7, uniform 9.9)  masked_lm_accuracy 0.1000 (unigram 0.05)
  sentence_order_loss 0.7000 (chance 0.6931)  sentence_order_accuracy 0.4000 (chance 0.5)
step 26/50  loss 6.0000  masked_lm_loss 5.3000  sentence_order_loss 0.7000  lr 0.001
step 30/50  loss 5.5000  masked_lm_loss 4.8000  sentence_order_loss 0.7000  lr 0.001  1.0 examples/s  128 tokens/s  1:20 left
step 50/50  loss 5.0000  masked_lm_loss 4.3000  sentence_order_loss 0.7000  lr 0  40.0 examples/s  5120 tokens/s  0:00 left
Step 50, 5 records held out:
  masked_lm_loss 5.4000 (unigram 6.7, uniform 9.9)  masked_lm_accuracy 0.2000 (unigram 0.05)
  sentence_order_loss 0.6000 (chance 0.6931)  sentence_order_accuracy 0.6000 (chance 0.5)
"""


def write_results(folder, log, *flags):
    (folder / "train_0.log").write_text(log)
    (folder / "run_config.json").write_text(json.dumps({"flags": {"train_batch_size": 4}}))
    return subprocess.run(
        [sys.executable, os.path.join(HERE, "train_results.py"), "--log", str(folder / "train_0.log"),
         "--output_dir", str(folder), "--network", "net", "--kind", "acc", "--seconds", "77"] + list(flags),
        cwd=os.path.dirname(HERE), env=dict(ENVIRONMENT, PYTHONPATH=os.path.dirname(HERE)),
        stderr=subprocess.PIPE, universal_newlines=True)


def test_the_pace_is_of_the_steady_part(tmp_path):
    assert write_results(tmp_path, LOG).returncode == 0
    # Steps 11-20 took 10/20, 21-25 took 5/10 and 31-50 took 20/40 (batches a record): 35 in 1.5.
    assert (tmp_path / "net_bs4_1p_acc.log").read_text() == (
        "Network = net\nRankSize = 1\nBatchSize = 4\nDeviceType = %s\nCaseName = net_bs4_1p_acc\n"
        "ActualFPS = 23.33\n"
        "TrainingTime = 171.43\nTrainAccuracy = 0.6000\nActualLoss = 5.0000\nE2ETrainingTime = 77\n"
        % os.uname().machine)
    assert (tmp_path / "train_net_bs4_1p_acc_loss.txt").read_text() == (
        "9.0000\n8.0000\n7.0000\n6.5000\n6.0000\n5.5000\n5.0000\n")


def test_one_pace_is_taken_though_it_has_not_settled(tmp_path):
    assert write_results(tmp_path, "".join(LOG.splitlines(True)[:3]), "--rank_size", "2").returncode == 0
    results = (tmp_path / "net_bs4_2p_acc.log").read_text()
    assert "ActualFPS = 5.00\nTrainingTime = 1600.00\nTrainAccuracy = None\nActualLoss = 8.0000\n" in results


def test_without_a_pace_the_whole_launch_counts(tmp_path):
    log = "Resuming from step 5 of 50\n" + LOG.splitlines(True)[1].replace("step 1/", "step 27/")
    assert write_results(tmp_path, log).returncode == 0
    assert "ActualFPS = %.2f\n" % (22 * 4 / 77) in (tmp_path / "net_bs4_1p_acc.log").read_text()


def test_a_log_of_no_training_is_an_error(tmp_path):
    run = write_results(tmp_path, LOG.splitlines(True)[0])
    assert (run.returncode == 1 and run.stderr.count("\n") == 1
            and "train_results: error: %s" % tmp_path in run.stderr)
    assert not glob.glob(str(tmp_path / "*_loss.txt"))


def environment_of(commands, **environment):
    """What a strict shell knows after env.sh."""
    script = 'set -euo pipefail; source "%s"; echo "$JOB_ID $ASCEND_DEVICE_ID $RANK_SIZE $-"; %s' % (
        os.path.join(HERE, "env.sh"), commands)
    return subprocess.run(["bash", "-c", script], env=dict(ENVIRONMENT, **environment),
                          stdout=subprocess.PIPE, stderr=subprocess.PIPE, universal_newlines=True)


def test_the_environment_has_defaults_and_what_is_set_stays():
    run = environment_of("")
    assert (run.returncode, run.stderr) == (0, "") and run.stdout.startswith("10087 0 1 ")
    assert environment_of("", JOB_ID="5", ASCEND_DEVICE_ID="2", RANK_SIZE="4").stdout.startswith("5 2 4 ")


def test_canns_own_script_is_sourced_though_it_is_not_strict(tmp_path):
    (tmp_path / "set_env.sh").write_text('false\nexport FROM_CANN="$NOT_SET/lib"\n')
    run = environment_of('echo "$FROM_CANN"; false; echo "not strict"', ASCEND_TOOLKIT_HOME=str(tmp_path))
    first, second = run.stdout.splitlines()
    assert (run.returncode, second) == (1, "/lib") and {"e", "u"} <= set(first.split()[3])


# ---------------------------------------------------------------- ModelArts


@pytest.mark.parametrize("stage, first", [("pretrain", "--input_file"), ("finetune", "--data_dir")])
def test_the_start_file_of_modelarts_launches_what_the_scheduler_gave_it(stand_in, stage, first):
    """Once in a container, which sees the host's device 4 as 0."""
    folder = stand_in.parent
    shutil.copy(os.path.join(os.path.dirname(HERE), "modelarts_start.py"), str(stand_in))
    devices = [{"device_id": "4", "device_ip": "10.1.0.4"}]
    (folder / "jobstart_hccl.json").write_text(json.dumps({"status": "completed", "group_list": [
        {"instance_list": [{"server_id": "10.0.0.1", "devices": devices}]}]}))
    done = subprocess.run(
        [sys.executable, str(stand_in / "modelarts_start.py"), "--stage=" + stage, "--data_url=in",
         "--train_url=out", "--seed=3"], cwd=str(folder), stdout=subprocess.PIPE, stderr=subprocess.PIPE,
        env=dict(ENVIRONMENT, RANK_TABLE_FILE=str(folder), MA_NUM_HOSTS="1", VC_TASK_INDEX="0",
                 MA_LOG_DIR="log", PYTHONPATH=str(stand_in)))
    assert (done.returncode, done.stderr) == (0, b"")
    log = (folder / "log" / "0" / "train_0.log").read_text()
    assert log.startswith("argument %s=in\nargument --output_dir=out\nargument --seed=3\n" % first)
    assert " RANK_ID=none RANK_SIZE=1 RANK_TABLE_FILE=none ASCEND_DEVICE_ID=0 JOB_ID=10087\n" in log
