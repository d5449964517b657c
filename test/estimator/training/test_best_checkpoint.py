import functools
import json
import os
import shutil

import numpy as np
import pytest
import tensorflow.compat.v1 as tf

import tiny_training
from estimator.training import best_checkpoint
from estimator.training.best_checkpoint import keep_if_best
from estimator.weights import checkpoint_files, model_folder
from estimator.weights.model_folder import ModelFolder
from etl.common.command_line import UserError
from etl.text.tokenization import TokenizerConfig
from mistakes import message_of

ENDINGS = (".index", ".data-00000-of-00001", ".meta")


@pytest.fixture
def keep(tmp_path):
    """Offers a checkpoint of a step that reached a loss."""
    vocabulary = TokenizerConfig(tiny_training.write_vocabulary(tmp_path / "v.txt"))

    def offer(step, loss, max_seq_length=8):
        prefix = tmp_path / ("model.ckpt-%d" % step)
        for ending in ENDINGS:
            (tmp_path / (prefix.name + ending)).write_text("%d" % step)
        description = ModelFolder(tiny_training.CONFIG, vocabulary, max_seq_length)
        return keep_if_best(str(tmp_path), str(prefix), description, {"loss": loss, "global_step": step},
                            "loss")
    return offer


def test_the_best_replaces_the_one_before(keep, tmp_path):
    assert [keep(1, 5.0), keep(3, 4.5), keep(4, 4.0)] == [True, True, True]
    best = tmp_path / "best"
    assert checkpoint_files.resolve(str(best)) == str(best / "model.ckpt-4")
    assert (best / "model.ckpt-4.index").read_text() == "4"
    assert sorted(os.listdir(str(best))) == [
        "albert_config.json", "checkpoint", "eval_results.json", "eval_results.txt",
        "model.ckpt-4.data-00000-of-00001",
        "model.ckpt-4.index", "model.ckpt-4.meta", "model.ckpt-4.seal.json", "model.json", "vocab.txt"]
    assert json.loads((best / "eval_results.json").read_text()) == {"loss": 4.0, "global_step": 4}
    assert model_folder.read(str(best)).max_seq_length == 8


def test_of_equal_ones_the_first_stays(keep, tmp_path):
    assert [keep(1, 5.0), keep(2, 4.0), keep(3, 4.5), keep(4, 4.0)] == [True, True, False, False]
    (tmp_path / "best" / "model.ckpt-2.index").write_text("cut off")
    assert keep(2, 4.0)
    assert (tmp_path / "best" / "model.ckpt-2.index").read_text() == "2"


def test_one_that_is_no_number_never_replaces_another(keep):
    assert [keep(1, 5.0), keep(2, float("nan")), keep(3, 4.0)] == [True, False, True]
    assert keep(4, 3.0)


def test_copying_that_was_cut_off_leaves_the_one_before(keep, tmp_path, monkeypatch):
    assert keep(1, 5.0)
    monkeypatch.setattr(best_checkpoint.result_files, "write_results", lambda *arguments: 1 / 0)
    with pytest.raises(ZeroDivisionError):
        keep(2, 4.0)
    assert checkpoint_files.resolve(str(tmp_path / "best")) == str(tmp_path / "best" / "model.ckpt-1")


def test_the_best_is_found_once_it_is_whole(tmp_path):
    assert best_checkpoint.find(str(tmp_path)) is None
    with tf.Graph().as_default(), tf.Session() as session:
        tf.get_variable("weights", initializer=np.ones(1000, np.float32))
        session.run(tf.global_variables_initializer())
        tf.train.Saver().save(session, str(tmp_path / "best" / "model.ckpt"), global_step=7)
    prefix = str(tmp_path / "best" / "model.ckpt-7")
    assert best_checkpoint.find(str(tmp_path)) == prefix
    os.truncate(prefix + ".data-00000-of-00001", 100)
    with pytest.raises(UserError, match="best/model.ckpt-7: damaged: weights cannot be read"):
        best_checkpoint.find(str(tmp_path))
    os.remove(str(tmp_path / "best" / "checkpoint"))
    assert best_checkpoint.find(str(tmp_path)) is None


@pytest.mark.parametrize("metric, lower",
                         [("masked_lm_loss", True), ("perplexity", True), ("masked_lm_accuracy", False),
                          ("eval_accuracy", False), ("f1", False)])
def test_which_way_is_better(metric, lower):
    assert best_checkpoint.is_better_lower(metric) is lower


OF_A_WRITE = ("replace", "remove")  # each shows something new in a folder, and nothing else here does


def killed_after(count, action):
    """Runs `action` in a process that dies as by kill -9 before its write number `count` + 1; returns whether
    it came to its end."""
    child = os.fork()
    if child:
        return os.WEXITSTATUS(os.waitpid(child, 0)[1]) == 0
    left = [count]

    def counted(original, *arguments):
        if not left[0]:
            os._exit(9)
        left[0] -= 1
        return original(*arguments)
    for name in OF_A_WRITE:
        setattr(os, name, functools.partial(counted, getattr(os, name)))
    action()
    os._exit(0)


def judged_step(folder):
    """The step of the best checkpoint by its loss; None when there is none that was judged by it."""
    return best_checkpoint._results_by(str(folder / "best"), "loss").get("global_step")


@pytest.mark.parametrize("length, at_each_cut", [(8, {"model.ckpt-1", "model.ckpt-2"}),
                                                 (16, {"model.ckpt-1", None, "model.ckpt-2"})])
def test_wherever_copying_is_killed_the_one_before_or_the_new_one_is_whole(keep, tmp_path, length,
                                                                           at_each_cut):
    """With another description the one before does not count from the moment on when the new one's
    is written."""
    best, seen = tmp_path / "best", []
    for count in range(100):
        shutil.rmtree(str(best), ignore_errors=True)
        assert keep(1, 5.0)
        ended = killed_after(count, lambda: keep(2, 4.0, length))
        found = best_checkpoint.find(str(tmp_path), check_data=False)
        seen.append(found and os.path.basename(found))
        if found:
            step = found[-1]
            assert model_folder.read(str(best)).max_seq_length == (8 if step == "1" else length)
            for ending in ENDINGS:
                assert (best / ("model.ckpt-%s%s" % (step, ending))).read_text() == step
            best_checkpoint.tidy(str(tmp_path))
            assert json.loads((best / "eval_results.json").read_text())["global_step"] == int(step)
            assert judged_step(tmp_path) == int(step)
            assert sorted(path.name for path in best.glob("model.ckpt*")) == sorted(
                "model.ckpt-%s%s" % (step, ending) for ending in ENDINGS + (".seal.json",))
        assert keep(2, 4.0, length) and best_checkpoint.find(
            str(tmp_path), check_data=False).endswith("model.ckpt-2")
        if ended:
            break
    assert ended and len(seen) > 8 and (seen[0], seen[-1]) == ("model.ckpt-1",
                                                               "model.ckpt-2") and set(seen) == at_each_cut


def test_a_full_disk_leaves_the_one_before_and_no_half_copy(keep, tmp_path, monkeypatch):
    assert keep(1, 5.0)
    before = sorted(os.listdir(str(tmp_path / "best")))

    def full(source, path):
        raise OSError(28, "No space left on device", path)
    monkeypatch.setattr(best_checkpoint.files, "copy", full)
    with pytest.raises(OSError):
        keep(2, 4.0)
    assert sorted(os.listdir(str(tmp_path / "best"))) == before
    assert best_checkpoint.find(str(tmp_path), check_data=False) == str(tmp_path / "best" / "model.ckpt-1")


def test_another_checkpoint_of_the_same_name_counts_only_when_it_is_whole(keep, tmp_path):
    keep(2, 5.0)
    (tmp_path / "best" / "model.ckpt-2.index").write_text("of a run before")
    assert not killed_after(3, lambda: keep(2, 4.0)) and best_checkpoint.find(str(tmp_path)) is None


def test_what_was_not_finished_is_left_for_the_newest_and_damage_is_refused(keep, tmp_path, capsys):
    assert keep(1, 5.0)
    (tmp_path / "checkpoint").write_text('model_checkpoint_path: "model.ckpt-1"\n')
    assert best_checkpoint.choose(str(tmp_path), "checkpoint_dir") == str(tmp_path / "best" / "model.ckpt-1")
    assert capsys.readouterr().out == ""
    state = (tmp_path / "best" / "checkpoint").read_text()
    (tmp_path / "best" / "checkpoint").unlink()
    assert best_checkpoint.choose(str(tmp_path), "checkpoint_dir") == str(tmp_path / "model.ckpt-1")
    assert (capsys.readouterr().out == "%s was not finished (it has no file checkpoint): taking the newest, "
            "model.ckpt-1\n" % (tmp_path / "best"))
    (tmp_path / "best" / "checkpoint").write_text(state)
    (tmp_path / "best" / "vocab.txt").write_text("of another model")
    assert "incomplete: vocab.txt is not the file that was kept" in message_of(
        best_checkpoint.choose, str(tmp_path), "checkpoint_dir")


def test_a_best_that_leads_elsewhere_is_refused_and_others_files_in_it_stay(keep, tmp_path):
    (tmp_path / "best").mkdir()
    for name in ("notes.tmp", "model.ckpt-mine", "model.ckpt-1.tar"):
        (tmp_path / "best" / name).write_text("mine")
    assert keep(1, 5.0) and keep(2, 4.0)
    assert {"notes.tmp", "model.ckpt-mine", "model.ckpt-1.tar"} < set(os.listdir(str(tmp_path / "best")))
    (tmp_path / "best").rename(tmp_path / "elsewhere")
    (tmp_path / "best").symlink_to(tmp_path / "elsewhere")
    assert "best is a link, not a folder" in message_of(keep, 3, 3.0)


def test_a_best_of_before_seals_counts_by_the_results_of_its_step(keep, tmp_path):
    assert keep(1, 5.0)
    (tmp_path / "best" / "model.ckpt-1.seal.json").unlink()
    assert judged_step(tmp_path) == 1
    (tmp_path / "best" / "eval_results.json").write_text('{"loss": 1.0, "global_step": 2}')
    assert judged_step(tmp_path) is None
