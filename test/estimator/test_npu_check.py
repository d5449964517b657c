import dataclasses
import json

import numpy as np
import pytest

import albert_config
import tiny_training
from estimator import npu_check
from estimator.npu import devices, options, sessions
from estimator.pretraining import job

TINIER = dict(vocab_size=len(tiny_training.TOKENS), max_position_embeddings=16)


@pytest.fixture(scope="module")
def data(tmp_path_factory):
    return tiny_training.write_build(tmp_path_factory.mktemp("npu_check") / "data", num_train=20, num_eval=0)


def words_of(data, folder, config, **flags):
    given = dict(dict(albert_config_file=tiny_training.write_config(folder / "config.json", config),
                      input_file=data, output_dir=folder / "out", train_batch_size=4, num_train_steps=200,
                      num_warmup_steps=10, save_checkpoints_steps=100, do_train="true",
                      report_file=folder / "report.json"), **flags)
    return [word for name, value in given.items() for word in ("--" + name, str(value))]


@pytest.fixture
def check(data, tmp_path, capsys):
    """Runs the command on a config; gives the exit status, the text and the report."""
    def run(config=tiny_training.CONFIG, **flags):
        report = tmp_path / "report.json"
        status = npu_check.main(words_of(data, tmp_path, config, **flags))
        assert not (tmp_path / "out").exists()
        said = capsys.readouterr()
        return status, said.out + said.err, json.loads(report.read_text()) if report.exists() else None
    return run


def one_layer(name):
    """A shipped config with the tests' vocabulary and one layer; all others are like it."""
    config = albert_config.load(name)
    return dataclasses.replace(config, num_hidden_layers=1, num_hidden_groups=config.num_hidden_groups and 1,
                               **TINIER)


def shipped_configs():
    """All; slow are those whose graph has the ops of one before it, in other sizes."""
    seen = set()
    for name in albert_config.shipped_names():
        fields = one_layer(name).to_dict()
        ops = repr([fields[field] for field in sorted(fields) if not field.endswith("_size")
                    and field not in ("num_attention_heads", "initializer_range")])
        yield pytest.param(name, marks=[pytest.mark.slow] if ops in seen else [])
        seen.add(ops)


@pytest.mark.parametrize("name", shipped_configs())
def test_shipped_configs_have_no_fault(check, name):
    status, text, report = check(one_layer(name), optimizer="lamb")
    assert (status, report["faults"]) == (0, []), text
    assert "Nothing found that would fail" in text


def test_the_report(check):
    status, text, report = check(memory_gb=1, device_peak_tflops=0.001)
    assert status == 0 and "lamb" in text                              # the trainer's own defaults
    assert report["device"] == "npu (planned: npu_bridge is not installed)"
    assert report["loop"] == {"num_train_steps": 200, "batches_of_a_step": 1, "batches": 200,
                              "batches_of_a_loop": 100, "loops": 2, "loops_between_checkpoints": 1}
    assert ("Loops: 200 batches (200 steps of 1) in 2 loops of 100; a checkpoint every 1 loops and at the end"
            in text)
    memory, parameters = report["memory_bytes"], report["parameters"]
    assert memory["parameters"] == memory["gradients"] == 4 * parameters
    assert memory["optimizer"] == 8 * parameters + 16  # two moments, global_step and batches_taken
    assert (memory["accumulation"], report["memory_limit_bytes"]) == (0, 10 ** 9)
    assert report["seconds_of_a_batch_at_least"] == pytest.approx(sum(report["matmul_flops"].values()) / 1e9)
    assert report["npu_optimizers"] == [{"use_off_line": True, "precision_mode": "allow_mix_precision",
                                         "modify_mixlist": options.OWN_MIXLIST}]
    assert "precision_mode allow_mix_precision, use_off_line True" in text
    assert report["kernels"] == report["kernels_wanted"] == {devices.GELU_OP: 2, devices.DROPOUT_OP: 0}
    assert "Not checked: npu_bridge's own gelu and dropout" in text  # the graph holds ours under their names
    assert "Not checked: whether the adapter takes every op: give --supported_ops" in text
    assert "Only a device can show: whether its compiler has every op" in text


def test_what_float16_loses_without_our_list_and_ops_that_are_not_taken(check, tmp_path):
    (tmp_path / "mix.json").write_text(
        '{"black-list": {"to-add": ["L2Loss", "Square", "SquaredDifference"]}}')
    (tmp_path / "ops.json").write_text('{"MatMul": {"isGray": false, "isHeavy": true}}')
    status, text, report = check(modify_mixlist=tmp_path / "mix.json", supported_ops=tmp_path / "ops.json",
                                 num_train_steps=125000, lr_schedule="linear_after_warmup")
    assert status == 1
    found = {fault["what"]: fault["places"] for fault in report["faults"]}
    assert found["takes a constant that float16 does not hold"] == ["truediv"]  # by the steps of the run
    assert "Softmax is not in the adapter's list of supported ops" in found
    assert not any(what.startswith("MatMul") for what in found)
    status, text, _ = check(precision_mode="force_fp16", report_file=tmp_path / "none.json")
    assert status == 1 and "LayerNorm/batchnorm/add" in text
    (tmp_path / "ops.json").write_text("[]")
    status, text, _ = check(supported_ops=tmp_path / "ops.json")
    assert status == 1 and "--supported_ops: %s: wanted a JSON object" % (tmp_path / "ops.json") in text


def test_gradient_accumulation(check):
    status, _, report = check(gradient_accumulation_steps=4, optimizer="adamw")
    assert (status, report["faults"]) == (0, [])
    assert (report["loop"]["batches"], report["loop"]["loops"]) == (800, 8)
    assert report["memory_bytes"]["accumulation"] == report["memory_bytes"]["parameters"] + 8  # and a count


def test_fine_tuning(tmp_path, capsys):
    status = npu_check.main(["finetune", "--init_checkpoint", "none", "--output_dir", str(tmp_path / "out"),
                             "--albert_config_file", "mini", "--max_seq_length", "16"])
    text = capsys.readouterr().out
    assert status == 0 and "Nothing found that would fail" in text and not (tmp_path / "out").exists()


def test_memory_that_does_not_suffice_is_a_fault(check):
    status, text, report = check(memory_gb=0.00001)
    assert status == 1
    assert [fault["what"] for fault in report["faults"]] == [
        "parameters, gradients, optimizer and accumulation need 5.54e-05 GB of 1e-05"]
    assert "WOULD FAIL" in text and "use a smaller model" in text


@pytest.fixture(scope="module")
def plain_report(data, tmp_path_factory):
    """The report without further flags."""
    folder = tmp_path_factory.mktemp("plain")
    assert npu_check.main(words_of(data, folder, tiny_training.CONFIG)) == 0
    return json.loads((folder / "report.json").read_text())


@pytest.mark.parametrize("flags, is_warned", [({}, False), (dict(precision_mode="force_fp32"), True)])
def test_what_is_kept_for_the_backward_pass_takes_two_bytes_a_value_or_four(check, plain_report, flags,
                                                                            is_warned):
    memory = plain_report["memory_of_the_update_bytes"] + 0.75 * plain_report["memory_bytes"]["activations"]
    status, text, _ = check(memory_gb=memory / 1e9, **flags)
    assert status == 0 and ("this may not fit" in text) == is_warned


def plant(monkeypatch, module, name, change):
    monkeypatch.setattr(module, name, change(getattr(module, name)))


def test_a_fault_in_the_graph_is_said_with_its_place(check, monkeypatch):
    import tensorflow.compat.v1 as tf
    from estimator.model import kernels

    def call_python(x):
        return tf.ensure_shape(tf.py_func(lambda y: y, [x], tf.float32, name="planted"), x.shape)
    monkeypatch.setattr(kernels, "STOCK", kernels.Kernels(gelu=call_python))
    status, text, _ = check()
    assert status == 1 and "WOULD FAIL: calls back into Python: bert" in text and "/planted" in text


def test_a_fault_in_what_a_line_of_progress_shows(check, monkeypatch):
    import tensorflow.compat.v1 as tf
    from estimator.training import model_fn

    def with_more_shown(make):
        def make_spec(*given, **options):
            shown = dict(given[5], planted=tf.py_func(lambda: np.float32(1), [], tf.float32, name="planted"))
            return make(*given[:5], shown, *given[6:], **options)
        return make_spec
    plant(monkeypatch, model_fn, "_train_spec", with_more_shown)
    status, text, _ = check()
    assert status == 1 and "WOULD FAIL: calls back into Python: planted" in text


def batches_changed(monkeypatch, change):
    """The batches of the training are `change` of its Dataset."""
    plant(monkeypatch, job, "make_job", lambda make: lambda config: make(config)._replace(
        batches=lambda taken: lambda: change(make(config).batches(taken)())))


def test_batches_whose_size_only_the_run_knows(check, monkeypatch):
    import tensorflow.compat.v1 as tf
    batches_changed(monkeypatch, lambda data: data.apply(tf.data.experimental.unbatch()).batch(4))
    status, text, report = check()
    assert status == 1 and report is None
    assert "input_fn's batches have dynamic shapes" in text and "input_ids (?, 8)" in text
    assert "drop_remainder" in text and text.count("Traceback") == 0


def test_batches_of_a_one_shot_iterator(check, monkeypatch):
    import tensorflow.compat.v1 as tf
    batches_changed(monkeypatch, lambda data: tf.data.make_one_shot_iterator(data).get_next())
    status, text, _ = check()
    assert (status == 1
            and "WOULD FAIL: one-shot iterator, which crashes the process in a loop: OneShotIterator" in text)


def test_a_layer_without_the_devices_gelu(check, monkeypatch):
    from estimator.model import kernels, modeling
    plant(monkeypatch, modeling, "build_encoder", lambda build: lambda *given, **more: build(
        *given, **dict(more, kernels=kernels.STOCK)))
    status, text, _ = check()
    assert status == 1 and "WOULD FAIL: npu_gelu: 1 in the training graph, wanted 2" in text


def test_the_devices_kernels_in_the_graph_to_be_exported(check, monkeypatch):
    from estimator.training import model_fn
    plant(monkeypatch, model_fn, "_kernels",
          lambda kernels: lambda training, mode: kernels(training, "train"))
    status, text, _ = check()
    assert (status == 1
            and "WOULD FAIL: only a device can load it, but it is in the export graph: bert" in text)


def test_an_entry_of_our_own_in_the_session_would_be_a_second_one(check, monkeypatch):
    def with_entry(make):
        config = make()
        config.graph_options.rewrite_options.custom_optimizers.add(name="NpuOptimizer")
        return config
    plant(monkeypatch, sessions, "npu_session_config", lambda make: lambda: with_entry(make))
    status, text, _ = check()
    assert status == 1 and "WOULD FAIL: the session must have one NpuOptimizer, but it has 2" in text


def test_without_the_devices_kernels_none_is_wanted(check):
    status, text, report = check(npu_kernels="false")
    assert (status, report["kernels"],
            report["kernels_wanted"]) == (0, *[{devices.GELU_OP: 0, devices.DROPOUT_OP: 0}] * 2), text


@pytest.mark.parametrize("flags, message", [
    (dict(num_train_steps=250),
     "--num_train_steps must be a multiple of --iterations_per_loop, which is 100; got 250, try 200 or 300"),
    (dict(save_checkpoints_steps=30), "--save_checkpoints_steps must be a multiple of --iterations_per_loop"),
    (dict(train_batch_size=64), "--train_batch_size is 64, but"),
])
def test_what_the_trainer_refuses_is_refused_here(check, flags, message):
    status, text, report = check(**flags)
    assert status == 1 and message in text and report is None


@pytest.mark.parametrize("flags, message", [
    (["--backend", "cpu"], "backend is cpu"), (["--do_eval", "true"], "do_train is false"),
    (["--memory_gb", "0"], "memory_gb must be above 0")])
def test_flags_that_contradict_the_command(capsys, flags, message):
    with pytest.raises(SystemExit):
        npu_check.main(flags)
    assert message in capsys.readouterr().err


@pytest.mark.parametrize("name, has_masked_lm, has_pooled_head, gelus, dropouts", [
    ("tiny", True, False, 5, 0), ("tiny", False, True, 4, 1), ("tiny", False, False, 4, 0),
    ("tiny_google_fast", True, False, 5, 13), ("base_google_fast", False, True, 12, 38)])
def test_kernels_wanted(name, has_masked_lm, has_pooled_head, gelus, dropouts):
    from estimator.training.npu_report import kernels_wanted
    found = kernels_wanted(albert_config.load(name), True, has_masked_lm, has_pooled_head)
    assert found == {devices.GELU_OP: gelus, devices.DROPOUT_OP: dropouts}
