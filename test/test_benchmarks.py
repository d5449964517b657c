"""What the benchmarks share: rounds on file, the report, the command that runs them all. Times are
not tested."""
import os
import re
import subprocess
import sys
from xml.etree import ElementTree

import pytest

BENCHMARKS = os.path.join(os.path.dirname(os.path.abspath(__file__)), "benchmark")
SECONDS = {"older tools": [4.0, 2.0, 3.0], "ours": [2.0, 1.0, 6.0]}


@pytest.fixture(autouse=True)
def benchmarks_on_the_path(monkeypatch):
    monkeypatch.syspath_prepend(BENCHMARKS)


def test_rounds_are_read_as_written(tmp_path):
    import results
    path = str(tmp_path / "results.jsonl")
    assert results.read(path) == []
    results.append(path, "training_step", "tiny, 8 × 128", "s", SECONDS)
    results.append(path, "serving_speed", "batch 1", "ms", {"ours": (1, 2)})
    results.append(None, "nowhere", "", "s", {})
    assert results.read(path) == [results.Result("training_step", "tiny, 8 × 128", "s", SECONDS),
                                  results.Result("serving_speed", "batch 1", "ms", {"ours": [1.0, 2.0]})]


@pytest.mark.parametrize("unit, wanted", [("s", 1.5), ("examples/s", 2 / 3)])
def test_less_is_better_but_of_rates(unit, wanted):
    from bench_report import rows_of
    from results import Result
    theirs, ours = rows_of([Result("training_step", "tiny", unit, SECONDS)])
    assert (theirs.median, theirs.lowest, theirs.highest, theirs.rounds) == (3.0, 2.0, 4.0, 3)
    assert theirs.ratio == pytest.approx(wanted)
    assert (ours.alternative, ours.median, ours.ratio) == ("ours", 2.0, None)


def test_there_is_no_ratio_without_ours_and_none_to_zero():
    from bench_report import rows_of
    from results import Result
    assert [row.ratio for row in rows_of([Result("a", "b", "s", {"this": [1.0], "that": [2.0]}),
                                          Result("a", "b", "s",
                                                 {"this": [1.0], "ours": [0.0]})])] == [None] * 4


def test_the_table_has_a_line_for_each_alternative_and_names_what_failed():
    from bench_report import Outcome, make_table
    from results import Result
    text = make_table([Result("training_step", "a|b", "s", SECONDS)],
                      [Outcome("training_step", 3, False), Outcome("x", 1, True)], "two cores")
    assert "| training_step | a\\|b | older tools | s | 3 | 2 | 4 | 3 | 1.50 × |\n" in text
    assert "| training_step | a\\|b | ours | s | 2 | 1 | 6 | 3 |  |\n" in text
    assert text.endswith("\nFailed: x\n")


def test_the_page_shows_bars_and_what_failed():
    from bench_report import Outcome, make_page
    from results import Result
    page = make_page([Result("training_step", "tiny <1>", unit, SECONDS) for unit in ("s", "CPU-s")],
                     [Outcome("training_step", 12.4, False), Outcome("growth", 1, True)], "two cores")
    ElementTree.fromstring(re.sub("<!DOCTYPE html>|<meta[^>]*>", "", page))
    assert page.count("<rect") == 4 and "tiny &lt;1&gt;" in page and "1.50 ×" in page
    assert "<dt>training_step</dt><dd>12 s</dd>" in page and "<dt>growth</dt><dd>failed</dd>" in page


def test_a_benchmark_that_fails_is_named_and_the_others_run(tmp_path, monkeypatch, capfd):
    import bench
    for name, code in (("good.py",
                        "import sys, results; results.append(sys.argv[-1], 'good', 'x', 's', {'ours': [1]})"),
                       ("bad.py", "raise SystemExit('broke')")):
        (tmp_path / name).write_text("import sys; sys.path.insert(0, %r)\n%s\n" % (BENCHMARKS, code))
    monkeypatch.setattr(bench, "HERE", str(tmp_path))
    outcomes = bench.run_all({"bad": [["bad.py"]], "good": [["good.py"]]}, str(tmp_path / "out"))
    assert [(outcome.name, outcome.failed) for outcome in outcomes] == [("bad", True), ("good", False)]
    assert "broke" in (tmp_path / "out" / "bad.txt").read_text() and "FAILED: bad" in capfd.readouterr().out
    table = (tmp_path / "out" / "table.md").read_text(encoding="utf-8")
    assert "| good | x | ours |" in table and "Failed: bad" in table
    assert (tmp_path / "out" / "report.html").exists()


def test_an_unknown_benchmark_is_refused():
    run = subprocess.run([sys.executable, os.path.join(BENCHMARKS, "bench.py"), "--only", "growth,nothing"],
                         stdout=subprocess.PIPE, stderr=subprocess.PIPE)
    assert run.returncode == 2 and b"no benchmark nothing" in run.stderr


def test_every_benchmark_that_is_run_is_there(tmp_path):
    import argparse
    import bench
    arguments = argparse.Namespace(data="data", corpus="*.txt", vocab_file="vocab.txt", task="afqmc")
    scripts = {command[0] for commands in bench.commands_of(arguments, str(tmp_path)).values()
               for command in commands}
    assert not [script for script in scripts if not os.path.exists(os.path.join(BENCHMARKS, script))]


def test_laws_of_growth():
    from growth import describe_law
    assert describe_law([1, 2, 4], [3, 6, 12]) == "size^1.00; from size to size 1.00 1.00; holds throughout"
    assert describe_law(
        [1, 2, 4, 8], [1, 1, 2, 8]).endswith("from size to size 0.00 1.00 2.00; breaks 1–2, 4–8")


def test_adding_up_gradients_on_paper():
    import argparse
    from ascend_on_paper import sum_seconds
    links = argparse.Namespace(devices=8, group=4, link_gb=10, between_gb=20)
    assert sum_seconds(links, 8 * 10 ** 9) == {"ring": pytest.approx(1.4), "groups": pytest.approx(0.4 + 0.1)}


def test_an_op_on_paper_takes_as_long_as_its_unit_or_the_memory():
    from ascend_operators import CUBE, VECTOR, Cost
    assert Cost(CUBE, 512e12, 600e9).seconds() == pytest.approx(2)
    assert Cost(VECTOR, 8.2e12, 3600e9).seconds() == pytest.approx(3)


def test_layer_normalizations_are_composed_as_a_devices_compiler_fuses_them():
    """Each is one op on paper, and one on the way back: it reads and writes rows and weights, no more."""
    import argparse
    import tensorflow.compat.v1 as tf
    import albert_config
    import ascend_operators
    arguments = argparse.Namespace(batch=2, length=8, own_gelu=False, classifier=False)
    with tf.Graph().as_default():
        ops = ascend_operators.build(albert_config.load("mini"), arguments)
        found = ascend_operators.costs(ops, fused_normalization=True)
    there, back = found["LayerNorm", "forward"], found["LayerNormGrad", "backward"]
    assert len(there) == len(back) == 6        # of the embeddings, two a layer, of the masked LM
    rows, weights = 2 * 8 * 64 * 2, 64 * 2     # bytes in float16
    assert there[0].bytes == 2 * rows + 2 * weights
    assert 3 * rows + 3 * weights <= back[0].bytes < 3.1 * rows + 3 * weights
    assert not any("SquaredDifference" in kind for kind, _ in found)
