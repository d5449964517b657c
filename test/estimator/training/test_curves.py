import os

import pytest
import tensorflow.compat.v1 as tf

from estimator.training import curves
from estimator.training.curves import Chart, read_curves, write_report
from etl.common import files

CHARTS = (Chart("Loss", ("loss",), "nats", "unigram"), Chart("Nothing", ("other",), "share"))


def write_events(folder, points, suffix=""):
    """An event file of {(name, step): value}."""
    writer = tf.summary.FileWriter(str(folder), filename_suffix=suffix)
    for (name, step), value in points.items():
        writer.add_summary(tf.Summary(value=[tf.Summary.Value(tag=name, simple_value=value)]), step)
    writer.close()
    return max((str(path) for path in folder.glob("events*")), key=os.path.getmtime)


def test_steps_that_were_run_twice_count_as_the_later_run_had_them(tmp_path):
    os.utime(write_events(tmp_path, {("loss", 1): 4.0, ("loss", 3): 3.0}, ".a"), (1, 1))
    os.utime(write_events(tmp_path, {("loss", 2): 3.5, ("loss", 3): 2.0}, ".b"), (2, 2))
    assert read_curves(str(tmp_path)) == {"loss": [(1, 4.0), (2, 3.5), (3, 2.0)]}


def test_an_event_file_that_is_cut_off_gives_what_it_holds(tmp_path):
    path = write_events(tmp_path, {("loss", 1): 4.0, ("loss", 2): 3.0})
    with open(path, "r+b") as stream:
        stream.truncate(os.path.getsize(path) - 3)
    assert read_curves(str(tmp_path)) == {"loss": [(1, 4.0)]}


def test_the_page_holds_the_curves_and_how_it_was_made(tmp_path):
    write_events(tmp_path, {("loss", 1): 4.0, ("loss", 2): 3.0})
    write_events(tmp_path / "eval", {("loss", 2): 3.5})
    files.write_json(str(tmp_path / "eval_results.json"), {"unigram": 3.25, "num_examples": 7})
    files.write_json(str(tmp_path / "run_config.json"),
                     {"command": "python -m x --y <1>", "versions": {"tensorflow": "1.15.5"}})
    path = write_report(str(tmp_path), "Pretraining", CHARTS)
    with open(path, encoding="utf-8") as stream:
        text = stream.read()
    for wanted in ("Pretraining", "Loss", "training", "held out", "unigram", "num examples", "1.15.5",
                   "python -m x --y &lt;1&gt;"):
        assert wanted in text
    assert "Nothing" not in text and "http" not in text.replace("http://www.w3.org", "")


@pytest.mark.parametrize("folder", ["", "missing"])
def test_without_events_there_is_a_page_all_the_same(tmp_path, folder):
    assert read_curves(str(tmp_path / folder)) == {}
    assert os.path.exists(write_report(str(tmp_path), "Pretraining", CHARTS))
    assert curves.FILE == "training_report.html"
