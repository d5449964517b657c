import json
import os
import signal

import numpy as np
import pytest

import tiny_training
from estimator.npu.devices import Device
from estimator.npu.ranks import ALONE, World
from estimator.training import curves, run
from estimator.training.flags import TrainingFlags
from estimator.training.jobs import Evaluation, Job, Schedule
from estimator.training.resume import Position
from estimator.weights import checkpoint_files, model_folder
from estimator.weights.model_folder import ModelFolder
from etl.common.command_line import UserError
from etl.text.tokenization import TokenizerConfig

ACCURACY = {2: 0.75, 4: 0.5}                   # by step: the best checkpoint is not the newest


class FakeEstimator:
    """Writes a checkpoint where a part of the training ends, and tells what it was asked for."""

    def __init__(self, output_dir, events, stops_at):
        self._output_dir, self._events, self._stops_at = output_dir, events, stops_at

    def train(self, part, hooks):
        begin, step = part
        self._events.append("train from %d" % begin)
        checkpoint_files.write(os.path.join(self._output_dir, "model.ckpt-%d" % step), {
            "global_step": np.int64(step), "batches_taken": np.int64(step), "w": np.float32(step)},
                               "output_dir")
        model_folder.write_state(self._output_dir, ["model.ckpt-%d" % step])
        if step == self._stops_at:
            os.kill(os.getpid(), signal.SIGTERM)


class FakeDevice(Device):
    """Of the estimators above."""
    events, stops_at = [], None

    def make_estimator(self, model_fn, model_dir, options):
        return FakeEstimator(model_dir, self.events, self.stops_at)


@pytest.fixture
def folder(tmp_path):
    tiny_training.write_vocabulary(tmp_path / "vocab.txt")
    return tmp_path


@pytest.fixture
def events(monkeypatch):
    """What a run does, in order; reports are among it."""
    events = []
    write_report = curves.write_report

    def told(output_dir, title, charts, sections=(), evaluated="newest"):
        events.append("report on the %s" % evaluated)
        return write_report(output_dir, title, charts, sections, evaluated)
    monkeypatch.setattr(curves, "write_report", told)
    return events


def make_job(folder, events, world=ALONE, stops_at=None, eval_every=2, init_checkpoint=None, check=None,
             **flags):
    """Four steps, of a batch each."""
    config = TrainingFlags(output_dir=str(folder / "out"), **flags)
    device = FakeDevice(world=world)
    device.events, device.stops_at = events, stops_at
    model = ModelFolder(tiny_training.CONFIG, TokenizerConfig(str(folder / "vocab.txt")), 8)

    def batches(taken):
        return taken, taken + eval_every if eval_every else 4

    def evaluate(estimator, checkpoint):
        step = int(checkpoint.rsplit("-", 1)[1])
        events.append("evaluate step %d" % step)
        return Evaluation({"global_step": step, "eval_accuracy": ACCURACY[step]})

    def conclude(estimator, checkpoint):
        events.append("conclude")
        return evaluate(estimator, checkpoint)
    facts, start = run.find_start(config, device, model, "0123", init_checkpoint, check)
    return Job(command="estimator.test", title="Test", flags=config, device=device, folder=model, facts=facts,
               start=start, init_checkpoint=None, schedule=Schedule(4, 0, eval_every),
               model_fn=lambda numbers: None, batches=batches, evaluate=evaluate, best_metric="eval_accuracy",
               charts=(), next_command="serving.test",
               before_training=lambda: events.append("keep rows"), conclude=conclude,
               predict=lambda estimator, checkpoint: events.append("predict with " + os.path.relpath(
                   checkpoint, str(folder / "out"))))


def test_the_order_of_a_whole_run(folder, events, capsys):
    results = run.run(make_job(folder, events))
    assert events == ["keep rows", "train from 0", "evaluate step 2", "report on the newest",
                      "train from 2", "evaluate step 4", "report on the newest",
                      "conclude", "evaluate step 2", "report on the best", "predict with best/model.ckpt-2"]
    assert results == {"global_step": 2, "eval_accuracy": 0.75}
    assert json.loads((folder / "out" / "eval_results.json").read_text()) == results
    printed = capsys.readouterr().out.splitlines()
    assert printed[-2:] == ["Wrote %s" % (folder / "out" / curves.FILE), "Next: python -m serving.test"]


def test_without_evaluation_there_is_a_report_but_no_result(folder, events):
    assert run.run(make_job(folder, events, eval_every=None, do_train=True, do_eval=False)) is None
    assert events == ["keep rows", "train from 0", "report on the newest", "predict with model.ckpt-4"]
    left = os.listdir(str(folder / "out"))
    assert {curves.FILE, "model.ckpt-4.index", "run_config.json", "model.json"} <= set(left)
    assert not {"best", "eval_results.json", "eval_results.txt"} & set(left)


def test_what_counts_is_the_newest_where_the_job_does_not_conclude(folder, events):
    run.run(make_job(folder, events))
    del events[:]
    job = make_job(folder, events, do_eval=True)._replace(conclude=None, predict=None)
    assert run.run(job) is None
    assert events == ["keep rows", "evaluate step 4", "report on the newest"]
    assert json.loads((folder / "out" / "eval_results.json").read_text())["global_step"] == 4


def test_evaluation_alone_is_of_the_best(folder, events):
    run.run(make_job(folder, events))
    del events[:]
    assert run.run(make_job(folder, events, do_eval=True)._replace(predict=None))["global_step"] == 2
    assert events == ["keep rows", "conclude", "evaluate step 2", "report on the best"]


def test_sigterm_ends_the_run_and_the_next_goes_on(folder, events, capsys):
    assert run.run(make_job(folder, events, stops_at=2)) is None
    assert events == ["keep rows", "train from 0"]
    assert "Stopped by SIGTERM after step 2 of 4" in capsys.readouterr().out
    del events[:]
    job = make_job(folder, events)
    assert job.start == Position(2, 2)
    assert run.run(job)["global_step"] == 2
    assert events[:4] == ["keep rows", "evaluate step 2", "report on the newest", "train from 2"]


def test_other_ranks_write_nothing(folder, events):
    run.run(make_job(folder, events))
    before = sorted(os.listdir(str(folder / "out")))
    del events[:]
    assert run.run(make_job(folder, events, world=World(1, 2), do_eval=True)) is None
    assert events == [] and sorted(os.listdir(str(folder / "out"))) == before


def test_evaluation_needs_a_checkpoint(folder, events):
    with pytest.raises(UserError, match="--output_dir: .*out has no checkpoint: train first"):
        make_job(folder, events, do_eval=True)


def test_what_would_be_loaded_is_checked_only_where_a_training_begins(folder, events, capsys):
    (folder / "there.ckpt.index").write_text("checksums")
    there, asked = str(folder / "there.ckpt"), []
    for _ in range(2):
        run.run(make_job(folder, events, init_checkpoint=there,
                         check=lambda prefix: asked.append(prefix) or "It fits."))
    assert asked == [there] and capsys.readouterr().out.count("It fits.") == 1


def test_what_a_training_started_from_is_held_against_the_folder(folder, events):
    facts = make_job(folder, events).facts
    assert facts == {"training data": "of SHA-256 0123", "initial values": "none", "number of devices": "1"}
    run.run(make_job(folder, events))
    (folder / "there.ckpt.index").write_text("checksums")
    with pytest.raises(UserError,
                       match="holds a different run: initial values was none, is now there.ckpt.index"):
        make_job(folder, events, init_checkpoint=str(folder / "there.ckpt"))
