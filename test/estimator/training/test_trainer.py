import os
import re
import signal
import subprocess
import sys
from types import SimpleNamespace

import numpy as np
import pytest
import tensorflow.compat.v1 as tf

import tiny_training
from estimator import pretrain
from estimator.pretraining import job as pretraining
from estimator.pretraining.flags import PretrainConfig
from estimator.training import curves, run, trainer
from estimator.training.resume import Position
from estimator.weights import checkpoint_files, model_folder
from etl.common import files
from etl.common.command_line import UserError, parse

ROOT = os.path.dirname(os.path.dirname(os.path.dirname(os.path.dirname(os.path.abspath(__file__)))))


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """Data, and a model with dropout, so that a resumed run must draw what an uninterrupted one draws."""
    folder = tmp_path_factory.mktemp("trainer")
    tiny_training.write_build(folder / "data", num_train=200, num_eval=5)
    tiny_training.write_config(folder / "config.json", tiny_training.CONFIG.__class__(
        **dict(tiny_training.CONFIG.to_dict(), hidden_dropout_prob=0.1, attention_probs_dropout_prob=0.1)))
    return folder


def flags_of(folder, output_dir, **changes):
    flags = dict(input_file=folder / "data", albert_config_file=folder / "config.json",
                 output_dir=folder / output_dir, train_batch_size=8, eval_batch_size=4, num_train_steps=60,
                 num_warmup_steps=2, learning_rate=0.01, optimizer="lamb", save_checkpoints_steps=10,
                 log_steps=5, backend="cpu", do_train="true", do_eval="false")
    return [word for name, value in dict(flags, **changes).items() for word in ("--" + name, str(value))]


def start(folder, output_dir, **changes):
    """Starts the command as a process of its own."""
    return subprocess.Popen(
        [sys.executable, "-u", "-m", "estimator.pretrain"] + flags_of(folder, output_dir, **changes),
        cwd=ROOT, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, universal_newlines=True)


def run_until(process, pattern):
    """Reads the process's lines up to the first that matches."""
    for line in process.stdout:
        if re.search(pattern, line):
            return
    raise AssertionError("the process ended, code %s" % process.wait())


def weights(folder, output_dir, step):
    reader = tf.train.load_checkpoint(str(folder / output_dir / ("model.ckpt-%d" % step)))
    return {name: reader.get_tensor(name) for name in reader.get_variable_to_shape_map()}


def losses(folder, output_dir):
    """The loss by step as the event files tell it; what was written twice must be the same."""
    found = {}
    for path in sorted((folder / output_dir).glob("events*")):
        for event in tf.train.summary_iterator(str(path)):
            for value in event.summary.value:
                if value.tag in ("loss", "masked_lm_loss", "gradient_norm"):
                    found.setdefault((event.step, value.tag), set()).add(value.simple_value)
    return found


@pytest.fixture(scope="module")
def whole(folder):
    assert pretrain.main(flags_of(folder, "whole")) == 0
    return weights(folder, "whole", 60)


def assert_same(ours, theirs):
    assert sorted(ours) == sorted(theirs)
    for name, value in ours.items():
        np.testing.assert_array_equal(value, theirs[name], err_msg=name)


def test_a_run_that_was_killed_twice_ends_with_the_same_weights_bit_for_bit(folder, whole):
    for pattern in ("^step 15/", "^step 35/"):
        process = start(folder, "killed")
        run_until(process, pattern)
        process.kill()
        process.wait()
    assert pretrain.main(flags_of(folder, "killed")) == 0
    assert_same(weights(folder, "killed", 60), whole)


def test_parts_between_evaluations_change_nothing(folder, whole, capsys):
    assert pretrain.main(flags_of(folder, "parts", do_eval="true", eval_every=25)) == 0
    assert_same(weights(folder, "parts", 60), whole)
    printed = capsys.readouterr().out
    assert re.findall(r"Step (\d+), 5 records held out", printed) == ["25", "50", "60"]
    assert os.path.exists(str(folder / "parts" / "best" / "checkpoint"))
    told = losses(folder, "parts")
    for key, values in losses(folder, "whole").items():
        if key[0] in (25, 50, 60):             # means over the same steps
            assert told[key] == values


def test_sigterm_saves_and_the_same_command_goes_on(folder, whole):
    process = start(folder, "stopped", num_train_steps=60)
    run_until(process, "^step 5/")
    process.send_signal(signal.SIGTERM)
    rest, _ = process.communicate(timeout=200)
    assert process.returncode == 0
    step = int(re.search(r"Stopped by SIGTERM after step (\d+) of 60, which is saved", rest).group(1))
    assert os.path.exists(str(folder / "stopped" / ("model.ckpt-%d.index" % step)))
    assert pretrain.main(flags_of(folder, "stopped")) == 0
    assert_same(weights(folder, "stopped", 60), whole)


ACCUMULATION = dict(train_batch_size=4, gradient_accumulation_steps=2, num_train_steps=20)


@pytest.fixture(scope="module")
def accumulated(folder):
    """The folder of an uninterrupted run in which two batches are an update."""
    assert pretrain.main(flags_of(folder, "accumulated", **ACCUMULATION)) == 0
    return folder / "accumulated"


def test_accumulation_resumes_within_its_data(folder, accumulated):
    process = start(folder, "accumulated_killed", **ACCUMULATION)
    run_until(process, "^step 15/")
    process.kill()
    process.wait()
    assert pretrain.main(flags_of(folder, "accumulated_killed", **ACCUMULATION)) == 0
    assert_same(weights(folder, "accumulated_killed", 20), weights(folder, "accumulated", 20))


def test_a_checkpoint_that_does_not_count_batches_is_taken_over(folder, accumulated):
    """As an older release left it; here two batches are an update."""
    values = weights(folder, "accumulated", 10)
    assert values.pop("batches_taken") == 20
    older = folder / "older"
    older.mkdir()
    for name in ("run_config.json", "model.json", "albert_config.json", "vocab.txt"):
        (older / name).write_bytes((accumulated / name).read_bytes())
    checkpoint_files.write(str(older / "model.ckpt-10"), values, "output_dir")
    model_folder.write_state(str(older), ["model.ckpt-10"])

    assert pretrain.main(flags_of(folder, "older", **ACCUMULATION)) == 0
    assert_same(dict(weights(folder, "older", 10), batches_taken=20), weights(folder, "accumulated", 10))
    assert_same(weights(folder, "older", 20), weights(folder, "accumulated", 20))


def test_sigterm_while_evaluating_writes_nothing_half(folder, capsys):
    assert pretrain.main(flags_of(folder, "stopped_evaluation", num_train_steps=2)) == 0
    before = sorted(os.listdir(str(folder / "stopped_evaluation")))
    job = pretraining.make_job(parse("", "", PretrainConfig,
                                     flags_of(folder, "stopped_evaluation", num_train_steps=2)))
    job = job._replace(evaluate=lambda estimator, checkpoint: os.kill(os.getpid(), signal.SIGTERM))
    assert trainer.evaluate(job, run.make_estimator(job)) is False
    assert "Stopped by SIGTERM while evaluating" in capsys.readouterr().out
    assert sorted(
        os.listdir(str(folder / "stopped_evaluation"))) == before and "eval_results.txt" not in before


def test_a_training_that_went_on_meanwhile_is_not_gone_over_again(folder, whole):
    job = pretraining.make_job(parse("", "", PretrainConfig,
                                     flags_of(folder, "whole", num_train_steps=70, allow_changes="true")))
    with pytest.raises(UserError, match="--output_dir: another process continued the training in .*whole in "
                       "the meantime: run the command again"):
        trainer.train(job._replace(start=Position(50, 50)), run.make_estimator(job))


def test_a_second_training_in_the_same_folder_is_refused(folder, capsys):
    with trainer.locked(str(folder / "taken")):
        assert pretrain.main(flags_of(folder, "taken")) == 1
    assert "--output_dir: another training is running in %s" % (folder / "taken") in capsys.readouterr().err
    assert os.listdir(str(folder / "taken")) == [".lock"]


def test_a_loss_that_explodes_leaves_the_last_good_checkpoint(folder, capsys):
    assert pretrain.main(flags_of(folder, "exploded", optimizer="adamw", learning_rate=1e15,
                                  num_warmup_steps=0, save_checkpoints_steps=1)) == 1
    errors = capsys.readouterr().err
    assert re.search(r"error: training stopped after step \d+, before a weight was changed: .*loss "
                     r"\S*(nan|inf).*" r"learning_rate", errors) and errors.count("\n") == 1
    assert re.search(r"start again in another folder with --init_checkpoint, one of \S*model.ckpt-\d+",
                     errors)
    step = int(re.search(r"after step (\d+)", errors).group(1))
    assert all(np.isfinite(value).all() for value in weights(folder, "exploded", step).values())


def test_what_was_half_written_goes_and_all_else_stays(tmp_path):
    ends, ours = "0123456789abcdef" * 2, files.temporary_path("run_config.json")
    half_written = [ours, "graph.pbtxt.tmp" + ends, "checkpoint.tmp" + ends, "model.ckpt-7.meta.tmp" + ends,
                    "model.ckpt-7.index.tempstate123", "model.ckpt-7.data-00000-of-00001.tempstate123"]
    others = ["model.ckpt-5.index", "notes.tmp", "run_config.json.tmp-99", "graph.pbtxt.tmp0123",
              "mine.tmp" + ends, "model.ckpt-7_temp_0123", "model.ckpt-7.index.tempstate", "checkpoint"]
    for name in half_written + others:
        (tmp_path / name).write_text("x")
    for name in ("model.ckpt-7_temp_" + ends, "checkpoint.tmp" + ends[::-1], "folder.tmp", "best"):
        (tmp_path / name).mkdir()
        (tmp_path / name / "part").write_text("x")
    (tmp_path / ("model.ckpt-8_temp_" + ends)).symlink_to(tmp_path / "folder.tmp")
    trainer.remove_half_written(str(tmp_path))
    assert sorted(os.listdir(str(tmp_path))) == sorted(others + ["checkpoint.tmp" + ends[::-1], "folder.tmp",
                                                                 "best", "model.ckpt-8_temp_" + ends])
    assert os.listdir(str(tmp_path / "folder.tmp")) == ["part"]


@pytest.mark.parametrize("eval_every, written", [(None, [1, 3]), (10, [1])])
def test_the_report_follows_checkpoints_where_no_evaluation_writes_it(tmp_path, monkeypatch, eval_every,
                                                                      written):
    """With evaluations it is there from the first checkpoint on, and theirs afterwards."""
    job = SimpleNamespace(flags=SimpleNamespace(output_dir=str(tmp_path)),
                          schedule=SimpleNamespace(eval_every=eval_every))
    calls = []

    def write_report(job):
        calls.append(number)
        (tmp_path / curves.FILE).write_text("")
    monkeypatch.setattr(trainer, "write_report", write_report)
    hook = trainer._ReportHook(job)
    for number in range(5):
        if number in (1, 3):                   # a checkpoint
            files.write_text(str(tmp_path / "checkpoint"), 'model_checkpoint_path: "model.ckpt-%d"' % number)
        hook.after_run(None, None)
    assert calls == written
