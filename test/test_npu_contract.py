"""The trainers on the NPU backend, through the stand-in for npu_bridge in both its generations.

Each run is a process of its own: importing the newer generation changes tf.Session for the whole process.
"""
import json
import os
import re
import subprocess
import sys

import numpy as np
import pytest
import tensorflow.compat.v1 as tf

import pretrained
import tiny_training
from estimator.training import npu_report
from npu_runs import ROOT, STAND_IN, Run, pretrain, pretrain_in_turn, pretraining, weights

WORDS = tiny_training.WORDS
BY_CHIEF = dict(CM_CHIEF_IP="10.0.0.1", CM_CHIEF_PORT="60001", CM_CHIEF_DEVICE="0", CM_WORKER_IP="10.0.0.1",
                CM_WORKER_SIZE="2")            # two devices of one server, without a table


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    folder = tmp_path_factory.mktemp("npu")
    tiny_training.write_build(folder / "data", num_train=200, num_eval=5)
    tiny_training.write_config(folder / "config.json")
    (folder / "task").mkdir()
    for part, count in (("train", 80), ("dev", 7), ("test", 5)):
        lines = ["%s\t%s\t%d" % (WORDS[number % 15], WORDS[(number + number % 2) % 15], 1 - number % 2)
                 for number in range(count)]
        (folder / "task" / (part + ".tsv")).write_text("\n".join(lines) + "\n", encoding="utf-8")
    pretrain(folder, "H", "plain", backend="cpu")
    return folder


def losses_by_step(output_dir):
    """As the event files of a plain run with a line for each step tell them."""
    found = {event.step: value.simple_value for path in output_dir.glob("events*")
             for event in tf.train.summary_iterator(str(path))
             for value in event.summary.value if value.tag == "loss"}
    return [found[step] for step in sorted(found)]


def model_weights(output_dir):
    return [name for name in weights(output_dir, 20)
            if not name.endswith(("_m", "_v", "global_step", "batches_taken"))]


@pytest.fixture(scope="module")
def plain(folder):
    """Losses and results of plain tf.estimator."""
    return losses_by_step(folder / "plain"), json.loads((folder / "plain" / "eval_results.json").read_text())


@pytest.mark.parametrize("generation, loop", [
    pytest.param("H", 5, marks=pytest.mark.slow), ("M", 5), pytest.param("M", 1, marks=pytest.mark.slow)])
def test_pretraining_gives_the_losses_of_plain_tensorflow_and_goes_on_from_a_checkpoint(
        folder, plain, generation, loop):
    name = "loops_%s_%d" % (generation, loop)
    changes = dict(iterations_per_loop=loop, loss_scale="dynamic", backend="npu")
    run = pretrain(folder, generation, name, **changes)
    assert "on npu (requested)" in run.output
    np.testing.assert_allclose(run.noted("loss"), plain[0], rtol=1e-4)
    assert run.noted("call") == [loop] * (20 // loop)
    assert re.findall(r"^step (\d+)/20", run.output, re.M) == [str(step) for step in range(loop, 21, loop)]
    assert [session["mode"] for session in run.noted("session")] == ["train", "eval"]
    for session in run.noted("session"):
        assert (session["optimizers"], session["use_off_line"],
                session["precision_mode"]) == (1, True, "allow_mix_precision")
        assert (session["remapping"], session["memory_optimization"]) == (2, 2)         # OFF
    assert run.noted("gelu") and run.noted("loss_scale_optimizer") == [["AdamW", False]]
    results = json.loads((folder / name / "eval_results.json").read_text())
    assert results["num_examples"] == 5
    assert results["masked_lm_loss"] == pytest.approx(plain[1]["masked_lm_loss"], rel=1e-4)
    assert {"masked_lm_loss", "loss_scale"} <= tags(folder / name)

    (folder / name / "checkpoint").write_text('model_checkpoint_path: "model.ckpt-10"\n')
    again = pretrain(folder, generation, name, **changes)
    assert "Resuming from step 10 of 20" in again.output
    np.testing.assert_allclose(again.noted("loss"), plain[0][10:], rtol=1e-4)


@pytest.mark.parametrize("generation", ["H", "M"])
def test_the_check_finds_the_devices_kernels_and_its_one_entry_in_the_session(folder, generation):
    flags = dict(pretraining(folder, "checked"), iterations_per_loop=5, loss_scale="dynamic",
                 report_file=folder / "report.json")
    run = Run(folder, "estimator.npu_check", generation, flags).wait()
    report = json.loads((folder / "report.json").read_text())
    assert (report["faults"], report["not_checked"]) == ([], [npu_report.NO_LIST])
    assert report["kernels"] == report["kernels_wanted"] == {"npu_gelu": 2, "npu_dropout": 0}
    entry, = report["npu_optimizers"]
    assert (entry["use_off_line"], entry["precision_mode"]) == (True, "allow_mix_precision")
    assert "Nothing found that would fail" in run.output and not (folder / "checked").exists()


def tags(output_dir):
    return {value.tag for path in output_dir.glob("events*") for event in tf.train.summary_iterator(str(path))
            for value in event.summary.value}


def test_what_a_checkpoint_holds_is_what_plain_tensorflow_reads(folder, plain):
    pretrain(folder, "H", "for_plain", backend="npu", iterations_per_loop=5, keep_checkpoint_max=2,
             do_eval="false", save_checkpoints_steps=5)
    assert sorted(path.name for path in (folder / "for_plain").glob("model.ckpt*")) == [
        "model.ckpt-%d.%s" % (step, kind) for step in (15, 20)
        for kind in ("data-00000-of-00001", "index")]   # no graph
    found, wanted = weights(folder / "for_plain", 20), weights(folder / "plain", 20)
    assert sorted(found) == sorted(wanted)
    for name in wanted:
        np.testing.assert_allclose(found[name], wanted[name], atol=2e-4, err_msg=name)
    assert not (folder / "for_plain" / "graph.pbtxt").exists()       # it would hold the device's ops
    run = pretrain(folder, "H", "for_plain", backend="cpu", do_train="false")
    assert "Step 20, 5 records held out" in run.output


@pytest.mark.parametrize("generation, most, kept",
                         [("H", 1, [20]), pytest.param("M", 0, [0, 2, 4, 6, 8, 10, 12, 14, 16, 18, 20],
                                                       marks=pytest.mark.slow)])
def test_as_many_checkpoints_stay_as_wanted(folder, plain, generation, most, kept):
    """Not the five of NPUEstimator's own saver."""
    pretrain(folder, generation, "kept_%d" % most, backend="npu", iterations_per_loop=1,
             keep_checkpoint_max=most, eval_every=10, save_checkpoints_steps=2)
    assert sorted(
        int(path.name[11:-6]) for path in (folder / ("kept_%d" % most)).glob("model.ckpt-*.index")) == kept


@pytest.mark.slow
def test_what_a_dynamic_loss_scale_keeps_is_no_weight(folder, plain):
    changes = dict(num_train_steps=5, iterations_per_loop=5, save_checkpoints_steps=5, do_eval="false")
    pretrain(folder, "M", "scaled", backend="npu", loss_scale="dynamic", **changes)
    run = pretrain(folder, "M", "from_scaled", backend="cpu", init_checkpoint=folder / "scaled",
                   **dict(changes, iterations_per_loop=1))
    assert "loaded %d variables from" % len(
        model_weights(folder / "plain")) in run.output and " unused" not in run.output


REFUSED = {                                    # by generation: flags, environment, message
    "H": [
        (dict(num_train_steps=23), {},
         "--num_train_steps must be a multiple of --iterations_per_loop, .* got 23, try 20 or 25"),
        (dict(modify_mixlist="mix.json"), {}, "--modify_mixlist: .* the first release that has it is r1.5.0"),
        (dict(precision_mode="allow_mix_precision_fp16"), {},
         "--precision_mode allow_mix_precision_fp16: .* knows only"),
        (dict(loss_scale="fixed", overflow_check="false"), {},
         "--overflow_check false: the installed npu_bridge always looks for overflows"),
        ({}, BY_CHIEF, "CM_CHIEF_IP: the installed npu_bridge counts devices by RANK_SIZE alone"),
        (dict(npu_options="options.json"), {}, "--npu_options: precision_mode_v2: the installed npu_bridge "
         "has no such option; the first release that has it is r1.13.0")],
    "M": [
        ({}, {"JOB_ID": ""}, "the environment variable JOB_ID must be set"),
        ({}, {"RANK_TABLE_FILE": "table.json"},
         "RANK_TABLE_FILE is set, .* but RANK_SIZE, RANK_ID are not set"),
        ({}, {"AOE_MODE": "2"},
         "--iterations_per_loop is 5, but the installed npu_bridge makes it 1, as where AOE tunes"),
        ({}, {"TF_CONFIG": '{"cluster": {"chief": ["a:1"], "ps": ["b:1"]}}'},
         "the installed npu_bridge refuses what it is given: ")]}


@pytest.mark.parametrize("generation", ["H", "M"])
def test_what_the_device_would_not_survive_is_refused_before_a_file_is_written(folder, generation):
    options = folder / "refused.json"
    options.write_text('{"precision_mode_v2": "mixed_float16"}')
    cases = [(dict(dict(iterations_per_loop=5, backend="npu"), **changes), environment)
             for changes, environment, _ in REFUSED[generation]]
    for flags, _ in cases:
        if "npu_options" in flags:
            flags["npu_options"] = options
    runs = pretrain_in_turn(folder, generation, "refused", cases)
    for (status, errors), (_, _, message) in zip(runs, REFUSED[generation]):
        assert status == 1 and re.search("^estimator.pretrain: error: .*" + message, errors), errors
        assert errors.count("\n") == 1 and not (folder / "refused").exists()


def test_auto_without_a_device_is_plain_tensorflow(folder, plain):
    run = pretrain(folder, "H", "plain", environment={"ASCEND_DEVICE_ID": ""}, do_train="false")
    assert "on cpu (npu_bridge is installed, but none of ASCEND_DEVICE_ID" in run.output


@pytest.mark.parametrize("generation, loss_scale, environment", [
    ("H", "fixed", {}), ("M", "dynamic", {"NPU_STAND_IN_INF_NAN": "1"})])
def test_an_update_that_overflows_is_skipped_and_counted(folder, generation, loss_scale, environment):
    run = pretrain(folder, generation, "overflows_" + generation, backend="npu", iterations_per_loop=1,
                   loss_scale=loss_scale, do_eval="false",
                   environment=dict(environment, NPU_STAND_IN_OVERFLOWS="3,7"))
    assert run.noted("dynamic_loss_scale") == ([[65536, 1000, 0.5]] if generation == "M" else [])
    assert len(run.noted("loss")) == 20        # it has taken its batch
    assert "updates overflowed" not in re.search("^step 2/20.*", run.output, re.M).group()
    assert re.search(r"^step 20/20 .*  2 updates overflowed$", run.output, re.M)
    assert "Trained 20 steps" in run.output and "overflows" in tags(folder / ("overflows_" + generation))
    assert os.path.exists(str(folder / ("overflows_" + generation) / "model.ckpt-18.index"))


@pytest.mark.parametrize("overflows", [
    "3,4", pytest.param("10", marks=pytest.mark.slow), pytest.param("20", marks=pytest.mark.slow)])
def test_parts_go_on_behind_a_batch_whose_update_overflowed(folder, overflows):
    """Whether evaluations part the run, whether an overflow is the last of a part, or of the run: the same
    batches, in turn."""
    run = pretrain(folder, "M", "parts_" + overflows, backend="npu", iterations_per_loop=1,
                   loss_scale="dynamic", do_eval="true",
                   eval_every=10, log_steps=1, environment={"NPU_STAND_IN_OVERFLOWS": overflows})
    whole = pretrain(folder, "M", "whole_" + overflows, backend="npu", iterations_per_loop=1,
                     loss_scale="dynamic", do_eval="false", environment={"NPU_STAND_IN_OVERFLOWS": overflows})
    updates = 20 - len(overflows.split(","))
    found, wanted = (weights(folder / (name + overflows), updates) for name in ("parts_", "whole_"))
    assert found["batches_taken"] == wanted["batches_taken"] == 20
    assert len(run.noted("loss")) == len(whole.noted("loss")) == 20


@pytest.mark.slow
def test_a_run_that_is_killed_after_an_overflow_goes_on_bit_for_bit(folder):
    """The third update overflows before the checkpoint that the second run goes on from, the seventh after
    it; make check-npu-resume has more ways."""
    flags = dict(backend="npu", iterations_per_loop=2, train_batch_size=4, gradient_accumulation_steps=2,
                 num_train_steps=10, save_checkpoints_steps=4, eval_every=8, loss_scale="dynamic")
    environment = {"NPU_STAND_IN_OVERFLOWS": "3,7"}
    pretrain(folder, "M", "not_killed", environment=environment, **flags)
    pretrain(folder, "M", "killed", -9, dict(environment, NPU_STAND_IN_KILLED_AT="7"), **flags)
    assert "Resuming from step 5 of 10" in pretrain(folder, "M", "killed", environment=environment,
                                                    **flags).output
    wanted, found = weights(folder / "not_killed", 8), weights(folder / "killed", 8)
    assert wanted["batches_taken"] == 20 and sorted(wanted) == sorted(found)
    assert [name for name in wanted if not np.array_equal(wanted[name], found[name])] == []


@pytest.mark.slow
def test_loops_count_batches_where_gradients_are_accumulated(folder):
    accumulated = dict(train_batch_size=4, gradient_accumulation_steps=2, do_eval="false")
    pretrain(folder, "H", "accumulated", backend="cpu", **accumulated)
    run = pretrain(folder, "M", "accumulated_npu", backend="npu", iterations_per_loop=10, loss_scale="fixed",
                   **accumulated)
    assert run.noted("call") == [10] * 4
    found, wanted = weights(folder / "accumulated_npu", 20), weights(folder / "accumulated", 20)
    for name in wanted:
        np.testing.assert_allclose(found[name], wanted[name], atol=2e-4, err_msg=name)


@pytest.mark.parametrize("generation, more", [
    ("H", {}), pytest.param("M", dict(loss_scale="dynamic", iterations_per_loop=2, eval_every=10),
                            marks=pytest.mark.slow)])
def test_two_ranks_are_one_with_the_double_batch(folder, plain, generation, more):
    name = "ranks_" + generation
    (folder / ("exchange_" + generation)).mkdir()
    (folder / "table.json").write_text("{}")
    flags = pretraining(folder, name, **dict(dict(train_batch_size=4, backend="npu", iterations_per_loop=1),
                                             **more))
    by_table = dict(RANK_TABLE_FILE=str(folder / "table.json"), RANK_SIZE="2")
    places = [BY_CHIEF if generation == "M" else dict(by_table, RANK_ID=str(rank)) for rank in (0, 1)]
    runs = [Run(folder, "estimator.pretrain", generation, flags, **places[rank], ASCEND_DEVICE_ID=str(rank),
                NPU_STAND_IN_EXCHANGE=str(folder / ("exchange_" + generation)),
                NPU_STAND_IN_RECORD=str(folder / (name + "-%d" % rank))) for rank in (0, 1)]
    for rank, run in enumerate(runs):
        run.record = folder / (name + "-%d" % rank)
        run.wait()
    np.testing.assert_allclose(np.mean([run.noted("loss") for run in runs], axis=0), plain[0], rtol=1e-4)
    found, wanted = weights(folder / name, 20), weights(folder / "plain", 20)
    for variable in wanted:
        np.testing.assert_allclose(found[variable], wanted[variable], atol=2e-4, err_msg=variable)
    first, second = runs
    parts = 2 if more else 1
    assert first.noted("distributed_optimizer") == second.noted("distributed_optimizer") == ["AdamW"] * parts
    if more:
        assert first.noted("loss_scale_optimizer") == [["NPUDistributedOptimizer", True]] * parts
    assert ("rank 1 of 2" in second.output and "Wrote" not in second.output
            and "records held out:" not in second.output)
    assert first.output.count("5 records held out:") == parts
    assert [second.noted("run_config")[0][key] for key in ("save_checkpoints_steps",
                                                           "model_dir")] == [0, str(folder / name)]
    assert len(list((folder / name).glob("events*"))) == 1


def finetune(folder, generation, output_dir, **changes):
    flags = dict(dict(data_dir=folder / "task", init_checkpoint=folder / "pretrained",
                      output_dir=folder / output_dir, max_seq_length=8, train_batch_size=8,
                      eval_batch_size=4, predict_batch_size=4, learning_rate=0.002, num_train_epochs=1,
                      log_steps=1, do_train="true", do_eval="true", do_predict="true"), **changes)
    return Run(folder, "estimator.finetune", generation, flags).wait()


@pytest.fixture(scope="module")
def fine_plain(folder):
    """The folder after a fine-tuning with plain tf.estimator."""
    pretrained.write_pretrained(folder / "pretrained")
    finetune(folder, "H", "fine_plain", backend="cpu", pad_to_max_length="true")
    return folder / "fine_plain"


# What the older generation does otherwise is in the pretraining above and in its own refusals.
@pytest.mark.parametrize("generation", [pytest.param("H", marks=pytest.mark.slow), "M"])
def test_fine_tuning_gives_the_losses_of_plain_tensorflow_and_loses_no_example(folder, fine_plain,
                                                                               generation):
    name = "fine_" + generation                # our dropout, since the device draws another
    run = finetune(folder, generation, name, backend="npu", iterations_per_loop=5, npu_kernels="false",
                   loss_scale="fixed")
    np.testing.assert_allclose(run.noted("loss"), losses_by_step(fine_plain), rtol=1e-4)
    assert [session["mode"]
            for session in run.noted("session")] == ["train"] + 3 * ["infer"]   # newest, best, test
    assert not run.noted("gelu") and not run.noted("dropout")
    assert json.loads((folder / name / "eval_results.json").read_text())["num_examples"] == 7
    found, expected = (np.loadtxt(str(output / "test_results.tsv")) for output in (folder / name, fine_plain))
    assert found.shape == (5, 2)
    np.testing.assert_allclose(found, expected, atol=1e-3)
    run = finetune(folder, generation, name, backend="npu",
                   do_train="false")           # no loop is given, and none is needed
    assert "Best checkpoint, step 10, " in run.output and "Test: accuracy" in run.output
    run = finetune(folder, generation, "fine_kernels_" + generation, backend="npu", iterations_per_loop=5)
    assert run.noted("dropout") == [pytest.approx(0.9)] and run.noted("gelu")


def test_the_options_file(folder):
    (folder / "dump").mkdir()
    (folder / "ops.json").write_text("{}")
    (folder / "options.json").write_text(json.dumps({
        "op_select_implmode": "high_precision", "graph_memory_max_size": "1024",
        "precision_mode_v2": "mixed_float16", "op_wait_timeout": 120, "deterministic": None,
        "insert_op_file": str(folder / "ops.json"), "local_device_list": "0,1",
        "memory_config": {"static_memory_policy": 2},
        "experimental_config": {"graph_memory_optimize_config": {"recompute": "auto"}},
        "profiling_config": {"enable_profiling": True, "profiling_options": "{}"},
        "dump_config": {"enable_dump": True, "dump_path": str(folder / "dump"), "dump_step": "0|5-10"}}))
    (folder / "mix.json").write_text('{"black-list": {"to-add": ["Softmax"]}}')
    run = pretrain(folder, "M", "options", backend="npu", iterations_per_loop=10,
                   npu_options=folder / "options.json", modify_mixlist=folder / "mix.json", do_eval="false",
                   environment={"RESTORE_FROM": "elsewhere", "LOCAL_CHECKPOINT_DIR": "there"})
    for name in ("RESTORE_FROM=elsewhere", "LOCAL_CHECKPOINT_DIR=there"):
        assert "Ignored: %s, from which npu_bridge would start" % name in run.output
    given = run.noted("run_config")[0]
    assert "precision_mode" not in given and given["precision_mode_v2"] == "mixed_float16"
    assert (given["op_select_implmode"], given["profiling_config"], given["modify_mixlist"]) == (
        "high_precision", "ProfilingConfig", str(folder / "mix.json"))
    assert (given["memory_config"], given["experimental_config"], "deterministic" in given) == (
        "MemoryConfig", "ExperimentalConfig", False)
    assert run.noted("dump_config") == [[True, str(folder / "dump"), "0|5-10", "output", False, "all"]]


# Slow: ranks that train are above, ranks that stop and go on in test_launchers, fine-tuning on one device above.
@pytest.mark.slow
def test_two_ranks_fine_tune_and_go_on(folder):
    """The first run is cut off after its first checkpoint; both ranks go on from it."""
    (folder / "exchange_fine").mkdir()
    (folder / "table.json").write_text("{}")

    def start(output_dir, rank, size, **changes):
        flags = dict(dict(data_dir=folder / "task", init_checkpoint="none",
                          albert_config_file=folder / "config.json", vocab_file=folder / "data" / "vocab.txt",
                          output_dir=folder / output_dir, max_seq_length=8, learning_rate=0.002,
                          num_train_epochs=1, log_steps=1, save_checkpoints_steps=5, npu_kernels="false",
                          train_batch_size=8 // size, do_train="true", do_predict="true", backend="npu",
                          iterations_per_loop=1), **changes)
        environment = dict(RANK_TABLE_FILE=str(folder / "table.json"), RANK_SIZE=str(size), RANK_ID=str(rank),
                           NPU_STAND_IN_EXCHANGE=str(folder / "exchange_fine")) if size > 1 else {}
        return Run(folder, "estimator.finetune", "H", flags, **environment)
    for attempt in range(2):
        runs = [start("fine_ranks", rank, 2) for rank in (0, 1)]
        for run in runs:
            run.wait()
        if attempt == 0:
            last = weights(folder / "fine_ranks", 10)
            (folder / "fine_ranks" / "checkpoint").write_text('model_checkpoint_path: "model.ckpt-5"\n')
            for path in (folder / "exchange_fine").iterdir():
                path.unlink()
    assert all("Resuming from step 5 of 10" in run.output for run in runs)
    assert "Test: accuracy" in runs[0].output and "Test:" not in runs[1].output
    found = weights(folder / "fine_ranks", 10)
    for name in last:
        np.testing.assert_allclose(found[name], last[name], atol=1e-5, err_msg=name)
    alone = start("fine_ranks", 0, 1, do_predict="false")
    alone.wait(1)
    assert "number of devices was 2, is now 1" in alone.errors


@pytest.mark.parametrize("generation", ["H", "M"])
def test_the_stand_in_raises_what_the_package_raises(generation, tmp_path):
    script = tmp_path / "script.py"
    script.write_text('''
import os, sys
import tensorflow.compat.v1 as tf
plain_init = tf.Session.__init__
from npu_bridge.npu_init import *
from npu_bridge.npu_init import NPUEstimator, NPURunConfig
from npu_bridge.estimator.npu.npu_loss_scale_manager import FixedLossScaleManager

def raises(kind, call):
    try:
        call()
    except kind as error:
        assert type(error) is kind, error
    else:
        raise AssertionError("nothing raised")

generation, folder = sys.argv[1:]
assert (tf.Session.__init__ is plain_init) == (generation == "H")
raises(ValueError, lambda: NPURunConfig(iterations_per_loop=0))
raises(TypeError, lambda: NPURunConfig(iterations_per_loop=2.0))
raises(ValueError, lambda: NPURunConfig(mix_compile_mode=True, iterations_per_loop=2))
raises(ValueError, lambda: NPURunConfig(save_checkpoints_steps=1, save_checkpoints_secs=1))
raises(TypeError, lambda: NPURunConfig(device_fn=None))
assert NPURunConfig().save_checkpoints_steps == 100
if generation == "H":
    raises(TypeError, lambda: NPURunConfig(modify_mixlist="x"))
else:
    raises(TypeError, lambda: NPURunConfig(auto_tune_mode="x"))
raises(ValueError, lambda: FixedLossScaleManager(0.5))
spec = lambda features, mode: tf.estimator.EstimatorSpec(
    mode, loss=tf.reduce_sum(features) * tf.get_variable("a", []), train_op=tf.train.get_global_step().assign_add(1).op)
raises(ValueError, lambda: NPUEstimator(model_fn=spec, config=None))
raises(ValueError, lambda: NPUEstimator(model_fn=spec, config=tf.estimator.RunConfig()))
raises(ValueError, lambda: NPUEstimator(model_fn=spec, model_dir=folder, config=NPURunConfig(model_dir=folder + "/b")))
make = lambda loop=1, model_fn=spec, **more: NPUEstimator(
    model_fn=model_fn, model_dir=folder, config=NPURunConfig(iterations_per_loop=loop, **more))
one_shot = lambda: tf.data.make_one_shot_iterator(tf.data.Dataset.from_tensors([1.0]).repeat()).get_next()
good = lambda: tf.data.Dataset.from_tensors([1.0]).repeat()
raises(RuntimeError, lambda: make(model_fn=lambda features, mode: None).train(good, steps=1))
raises(SystemError, lambda: make(loop=2).train(one_shot, steps=2))
shared = tf.ConfigProto()
make(session_config=shared)
raises(RuntimeError, lambda: make(session_config=shared).train(good, steps=1))
make(loop=5, save_checkpoints_steps=7).train(good, max_steps=23)
assert sorted(name for name in os.listdir(folder) if name.endswith(".index")) == [
    "model.ckpt-%d.index" % step for step in (0, 10, 20, 25)], os.listdir(folder)
del os.environ["JOB_ID"]
raises(AttributeError if generation == "H" else ValueError, make)
''')
    run = subprocess.run(
        [sys.executable, str(script), generation, str(tmp_path / "model")], cwd=ROOT, stderr=subprocess.PIPE,
        env=dict(os.environ, PYTHONPATH=STAND_IN, NPU_STAND_IN_GENERATION=generation, JOB_ID="1",
                 RANK_SIZE="1"))
    assert run.returncode == 0, run.stderr.decode()[-3000:]
