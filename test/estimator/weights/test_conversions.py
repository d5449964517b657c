import dataclasses
import json
import os
import re

import numpy as np
import pytest
import tensorflow.compat.v1 as tf

import tiny_models
import tiny_training
from estimator import checkpoints
from estimator.model import heads, modeling
from estimator.weights import checkpoint_files, conversions, model_folder, safetensors
from estimator.weights.model_folder import ModelFolder
from etl.text.tokenization import TokenizerConfig
from mistakes import message_of
from saved import CONFIGS, save


@pytest.fixture(autouse=True)
def fresh_graph():
    with tf.Graph().as_default():
        yield


class TestAverage:

    def test_means_without_slots_and_step(self, tmp_path):
        def build():
            tf.get_variable("a", [3])
            tf.get_variable("a/adam_m", [3])
            tf.train.get_or_create_global_step()
        saved = [save(tmp_path / ("model.ckpt-%d" % seed), build, seed) for seed in (1, 2)]
        output = str(tmp_path / "averaged" / "model.ckpt")
        conversions.average([prefix for prefix, _ in saved], output)
        assert checkpoint_files.read_shapes(output) == {"a": (3,)}
        mean = (saved[0][1]["a"] + saved[1][1]["a"]) / 2
        np.testing.assert_allclose(tf.train.load_variable(output, "a"), mean, rtol=1e-6)

    def test_different_models_are_refused(self, tmp_path):
        one, _ = save(tmp_path / "one.ckpt", lambda: (tf.get_variable("a", [3]), tf.get_variable("b", [2])))
        other, _ = save(tmp_path / "other.ckpt", lambda: tf.get_variable("a", [4]))
        assert message_of(conversions.average, [one, other], str(tmp_path / "out.ckpt")) == (
            "%s and %s are not of one model: a, b" % (one, other))
        assert not (tmp_path / "out.ckpt.index").exists()

    def test_nothing_is_written_over_and_nothing_stays_half_written(self, tmp_path):
        one, _ = save(tmp_path / "one.ckpt", lambda: tf.get_variable("a", [3]))
        for output in (one, one + "/", str(tmp_path)):
            assert message_of(conversions.average, [one],
                              output).startswith("--output: %s is there already" % output)
        assert sorted(os.listdir(str(tmp_path))) == ["one.ckpt.data-00000-of-00001", "one.ckpt.index"]

    def test_values_of_another_dtype_are_refused(self, tmp_path):
        half, _ = save(tmp_path / "half.ckpt", lambda: tf.get_variable("a", [3], tf.float16))
        assert message_of(conversions.average, [half], str(tmp_path / "out.ckpt")) == (
            "%s: wanted float32 values, but a is float16" % half)
        tf.get_variable("a", [3])
        assert "wanted float32 values" in message_of(checkpoint_files.plan_loading, half, CONFIGS["postln"])


class TestTransformers:
    """Both ways through the commands; the values and the logits against transformers itself are `make
    check-transformers`."""

    @staticmethod
    def make(folder, kind, labels=()):
        """A model folder with random values; returns its values by name and its config."""
        config = dataclasses.replace(tiny_models.CONFIGS[kind], vocab_size=len(tiny_training.TOKENS),
                                     inner_group_num=None)
        vocabulary = tiny_training.write_vocabulary(folder / "vocabulary.txt")
        tokenizer = TokenizerConfig(vocabulary, do_lower_case=False)
        model_folder.write(str(folder), ModelFolder(config, tokenizer, 10, None, labels))
        return save(folder / "model.ckpt",
                    lambda: heads.declare_variables(config, len(labels) or None))[1], config

    @pytest.mark.parametrize("labels", [(), ("好", "坏", "平")])
    @pytest.mark.parametrize("kind", ["google", "google_wide", "bert"])
    def test_there_and_back(self, tmp_path, kind, labels):
        values, config = self.make(tmp_path / "ours", kind, labels)
        there, back = str(tmp_path / "there"), str(tmp_path / "back")
        assert checkpoints.main(["to_transformers", "--checkpoint", str(tmp_path / "ours"), "--output_dir",
                                 there]) == 0
        assert sorted(os.listdir(there)) == ["config.json", "model.safetensors", "tokenizer_config.json",
                                             "vocab.txt"]
        assert checkpoints.main(["from_transformers", "--input_dir", there, "--output_dir", back]) == 0
        description = model_folder.read(back)
        assert (description.config, description.labels) == (dataclasses.replace(
            config, inner_group_num=1 if config.family == "google" else None), labels)
        assert (description.max_seq_length, description.tokenizer.do_lower_case) == (10, False)
        reader = tf.train.load_checkpoint(checkpoint_files.resolve(back))
        assert set(reader.get_variable_to_shape_map()) == set(values) | {"global_step"}
        for name, value in values.items():
            np.testing.assert_array_equal(reader.get_tensor(name), value.astype(np.float32), err_msg=name)

    def test_the_fast_variant_comes_back_with_whole_matrices_and_the_same_logits(self, tmp_path):
        values, config = self.make(tmp_path / "ours", "google_fast")
        description = model_folder.read(str(tmp_path / "ours"))
        conversions.to_transformers(str(tmp_path / "ours" / "model.ckpt"), description,
                                    str(tmp_path / "there"))
        conversions.from_transformers(str(tmp_path / "there"), str(tmp_path / "back"))
        whole = model_folder.read(str(tmp_path / "back")).config
        assert whole == dataclasses.replace(config, num_ffn_groups=1, inner_group_num=1)
        outputs = []
        for folder, model in (("ours", config), ("back", whole)):
            with tf.Graph().as_default(), tiny_models.session() as session:
                batch = {name: value % 20 for name, value in tiny_models.batch().items()}
                inputs = [tf.constant(batch[name]) for name in ("input_ids", "input_mask", "segment_ids")]
                encoded = modeling.build_encoder(model, *inputs)
                checkpoint_files.load(checkpoint_files.plan_loading(str(tmp_path / folder / "model.ckpt"),
                                                                    model))
                session.run(tf.global_variables_initializer())
                outputs.append(session.run(encoded.sequence_output))
        np.testing.assert_allclose(outputs[0], outputs[1], atol=1e-5)

    def test_classes_come_in_the_tasks_order(self, tmp_path):
        values, _ = self.make(tmp_path / "ours", "bert", ("好", "坏", "平"))
        there, back = str(tmp_path / "there"), str(tmp_path / "back")
        conversions.to_transformers(str(tmp_path / "ours" / "model.ckpt"),
                                    model_folder.read(str(tmp_path / "ours")), there)
        tokenizer = json.loads((tmp_path / "there" / "tokenizer_config.json").read_text())
        assert tokenizer["model_input_names"] == ["input_ids", "token_type_ids", "attention_mask"]
        conversions.from_transformers(there, back, "mood", labels_of={"mood": ("平", "好", "坏")})
        description = model_folder.read(back)
        assert (description.task, description.labels) == ("mood", ("平", "好", "坏"))
        found = tf.train.load_checkpoint(checkpoint_files.resolve(back)).get_tensor("output_weights")
        np.testing.assert_array_equal(found, values["output_weights"][[2, 0, 1]].astype(np.float32))
        for labels, message in (
                (("a", "b"), "--labels must be 3, as many as the classifier has outputs, got 2"),
                (("a", "b", "c"), "its labels are a, b, c, but those of mood are 平, 好, 坏: give ")):
            assert message_of(conversions.from_transformers, there, str(tmp_path / "no"), "mood", labels,
                              {"mood": ("平", "好", "坏")}).startswith(message)

    def test_a_head_of_one_output_is_a_regression(self, tmp_path):
        self.make(tmp_path / "ours", "google", ("x", "y"))
        there = tmp_path / "there"
        conversions.to_transformers(str(tmp_path / "ours" / "model.ckpt"),
                                    model_folder.read(str(tmp_path / "ours")), str(there))
        weights = safetensors.read(str(there / "model.safetensors"))
        weights.update({name: weights[name][:1] for name in ("classifier.weight", "classifier.bias")})
        safetensors.write(str(there / "model.safetensors"), weights)
        fields = json.loads((there / "config.json").read_text())
        fields.update(id2label={"0": "LABEL_0"}, problem_type=None)
        (there / "config.json").write_text(json.dumps(fields))
        labels_of = {"sts-b": (), "mood": ("0",)}
        for task in (None, "mood"):
            assert message_of(
                conversions.from_transformers, str(there), str(tmp_path / "no"), task, (), labels_of) == (
                    "its head gives a number, not classes: name the task by --task_name, one of sts-b")
        conversions.from_transformers(str(there), str(tmp_path / "back"), "sts-b", (), labels_of)
        assert model_folder.read(str(tmp_path / "back")).task == "sts-b"

    def test_a_checkpoint_without_a_description_takes_flags(self, tmp_path, capsys):
        self.make(tmp_path / "ours", "google")
        (tmp_path / "ours" / "model.json").unlink()
        flags = ["to_transformers", "--checkpoint", str(tmp_path / "ours"), "--output_dir",
                 str(tmp_path / "there")]
        assert checkpoints.main(flags) == 1
        assert "beside %s there is no model.json" % (
            tmp_path / "ours" / "model.ckpt") in capsys.readouterr().err
        assert checkpoints.main(flags + ["--albert_config_file",
                                         str(tmp_path / "ours" / "albert_config.json"),
                                         "--vocab_file", str(tmp_path / "ours" / "vocab.txt")]) == 0
        assert capsys.readouterr().out == ("Wrote %s: transformers.AlbertForPreTraining.from_pretrained "
                                           "takes it\n" % (tmp_path / "there"))

    @pytest.mark.parametrize("flag", [["--do_lower_case", "false"], ["--vocab_file", "vocab.txt"]])
    def test_what_a_description_says_no_flag_says_otherwise(self, tmp_path, capsys, flag):
        self.make(tmp_path / "ours", "google")
        assert checkpoints.main(["to_transformers", "--checkpoint", str(tmp_path / "ours"), "--output_dir",
                                 str(tmp_path / "there")] + flag) == 1
        assert flag[0] + " is for checkpoints without a description" in capsys.readouterr().err

    @pytest.mark.parametrize("kind, spoil, message", [
        ("postln", lambda folder: None, "the albert_zh family .* has no counterpart in transformers"),
        ("bert", lambda folder: (folder / "there").mkdir(), "--output_dir: .*there already exists"),
        ("bert", lambda folder: (folder / "ours" / "model.ckpt.data-00000-of-00001").write_bytes(b""),
         "damaged"),
    ])
    def test_what_fails_leaves_nothing(self, tmp_path, capsys, kind, spoil, message):
        self.make(tmp_path / "ours", kind)
        spoil(tmp_path)
        before = sorted(os.listdir(str(tmp_path)))
        assert checkpoints.main(["to_transformers", "--checkpoint", str(tmp_path / "ours"),
                                 "--output_dir", str(tmp_path / "there")]) == 1
        errors = capsys.readouterr().err
        assert re.search("^estimator.checkpoints to_transformers: error: .*" + message,
                         errors) and errors.count("\n") == 1
        assert sorted(
            os.listdir(str(tmp_path))) == before and not (tmp_path / "there" / "config.json").exists()
