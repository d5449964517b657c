import dataclasses
import os

import numpy as np
import pytest
import tensorflow.compat.v1 as tf

import albert_config
import tiny_models
from estimator.model import heads, modeling
from estimator.optimization import optimizers
from estimator.weights import checkpoint_files, seals
from mistakes import message_of
from saved import CONFIGS, encode, save, save_pretrained


@pytest.fixture(autouse=True)
def fresh_graph():
    with tf.Graph().as_default():
        yield


def touch(folder, *names):
    for name in names:
        (folder / (name + ".index")).write_bytes(b"")


def initial_values():
    with tiny_models.session() as session:
        session.run(tf.global_variables_initializer())
        return session.run({variable.op.name: variable for variable in tf.global_variables()})


class TestResolve:

    def test_a_prefix_or_any_of_its_files(self, tmp_path):
        prefix, _ = save(tmp_path / "model.ckpt-7", lambda: tf.get_variable("a", []))
        for ending in ("", ".index", ".meta", ".data-00000-of-00001"):
            assert checkpoint_files.resolve(prefix + ending) == prefix

    def test_a_folders_latest_wins_even_where_the_folder_was_moved(self, tmp_path):
        touch(tmp_path, "model.ckpt-1", "model.ckpt-2", "albert_model.ckpt")
        (tmp_path / "checkpoint").write_text('model_checkpoint_path: "/elsewhere/model.ckpt-2"\n')
        assert checkpoint_files.resolve(str(tmp_path)) == str(tmp_path / "model.ckpt-2")

    @pytest.mark.parametrize("name", ["albert_model.ckpt", "bert_model.ckpt"])
    def test_a_released_name(self, tmp_path, name):
        touch(tmp_path, name, "other.ckpt")
        assert checkpoint_files.resolve(str(tmp_path)) == str(tmp_path / name)

    def test_a_released_name_where_the_checkpoint_file_is_stale(self, tmp_path):
        touch(tmp_path, "albert_model.ckpt")
        (tmp_path / "checkpoint").write_text('model_checkpoint_path: "model.ckpt-125000"\n')
        assert checkpoint_files.resolve(str(tmp_path)) == str(tmp_path / "albert_model.ckpt")

    def test_a_newest_that_is_gone_is_an_error_and_no_older_one_takes_its_place(self, tmp_path):
        touch(tmp_path, "model.ckpt-0")
        (tmp_path / "checkpoint").write_text('model_checkpoint_path: "model.ckpt-12"\n')
        assert message_of(checkpoint_files.resolve, str(tmp_path)) == (
            "--init_checkpoint: %s names model.ckpt-12 as the newest, which is not there: restore it, or "
            "name another checkpoint" % (tmp_path / "checkpoint"))

    @pytest.mark.parametrize("content", ["", "not a list of checkpoints"])
    def test_a_damaged_list_of_checkpoints(self, tmp_path, content):
        touch(tmp_path, "model.ckpt-12")
        (tmp_path / "checkpoint").write_text(content)
        assert "checkpoint: names no checkpoint: it is empty or damaged" in message_of(
            checkpoint_files.resolve, str(tmp_path))

    def test_the_only_one(self, tmp_path):
        touch(tmp_path, "best.ckpt-31")
        assert checkpoint_files.resolve(str(tmp_path)) == str(tmp_path / "best.ckpt-31")

    def test_several_without_a_word_which(self, tmp_path):
        touch(tmp_path, "a.ckpt", "b.ckpt")
        assert message_of(checkpoint_files.resolve, str(tmp_path)) == (
            "--init_checkpoint: %s: several checkpoints and no file that says which: name one of "
            "a.ckpt, b.ckpt"
            % tmp_path)

    def test_nothing_there(self, tmp_path):
        assert message_of(checkpoint_files.resolve, str(tmp_path), "model_dir") == (
            "--model_dir: %s: no checkpoint there; looked for albert_model.ckpt.index, "
            "bert_model.ckpt.index, *.index" % tmp_path)
        missing = str(tmp_path / "missing.ckpt")
        assert message_of(checkpoint_files.resolve, missing) == (
            "--init_checkpoint: %s: no checkpoint there; looked for %s.index" % (missing, missing))


class TestIdentify:

    @pytest.mark.parametrize("kind", sorted(CONFIGS))
    def test_a_checkpoint_is_what_its_config_says(self, tmp_path, kind):
        prefix, _ = save(tmp_path / "model.ckpt", lambda: encode(kind))
        assert checkpoint_files.identify(
            checkpoint_files.read_shapes(prefix)) == checkpoint_files.identity_of(CONFIGS[kind])

    @pytest.mark.parametrize("name", albert_config.shipped_names())
    def test_the_shipped_configs_can_be_told_apart(self, name):
        assert list(checkpoint_files.fitting_configs(
            checkpoint_files.identity_of(albert_config.load(name)))) == [name]

    def test_other_checkpoints_are_refused(self, tmp_path):
        prefix, _ = save(tmp_path / "model.ckpt", lambda: tf.get_variable("a", [2]))
        assert message_of(checkpoint_files.identify, checkpoint_files.read_shapes(prefix)) == (
            "neither an ALBERT nor a BERT checkpoint: no variable bert/...embeddings/word_embeddings")

    @pytest.mark.parametrize("names, message", [
        (["_CHECKPOINTABLE_OBJECT_GRAPH", "model/bert/embeddings/weight/.ATTRIBUTES/VARIABLE_VALUE"],
         "a checkpoint of TensorFlow 2's objects, with variables such as model/bert/embeddings/weight/"
         ".ATTRIBUTES/VARIABLE_VALUE: save the model there by names, with tf.compat.v1.train.Saver"),
        (["module/bert/embeddings/word_embeddings"],
         "its variables are not called as here: module/bert/embeddings/word_embeddings, wanted "
         "bert/embeddings/word_embeddings: "),
        (["bert/embeddings/word_embeddings:0"],
         "its variables are not called as here: bert/embeddings/word_embeddings:0, wanted ")])
    def test_names_of_another_way_of_saving(self, names, message):
        assert message_of(checkpoint_files.identify, dict.fromkeys(names, (37, 6))).startswith(message)


class TestPlan:

    @pytest.mark.parametrize("kind", sorted(CONFIGS))
    def test_the_encoder_gets_the_files_values(self, tmp_path, kind):
        prefix, values = save_pretrained(tmp_path, kind)
        encode(kind)
        plan = checkpoint_files.plan_loading(prefix, CONFIGS[kind])
        checkpoint_files.load(plan)
        loaded = initial_values()
        assert set(loaded) == {name for name in values
                               if name.startswith("bert/")} == set(plan.assignment_map)
        for name, value in loaded.items():
            np.testing.assert_array_equal(value, values[name].astype(np.float32))
        assert plan.new == () and set(plan.unused) == set(values) - set(loaded)

    def test_a_session_gets_the_files_values_and_a_saver_of_just_those(self, tmp_path):
        prefix, values = save_pretrained(tmp_path, "postln")
        encode("postln")
        tf.get_variable("global_step", [], trainable=False)
        with tiny_models.session() as session:
            saver = checkpoint_files.restore(session, prefix, CONFIGS["postln"])
            again = saver.save(session, str(tmp_path / "again"), write_state=False, write_meta_graph=False)
        reader = tf.train.load_checkpoint(again)
        assert set(reader.get_variable_to_shape_map()) == {name for name in values
                                                           if name.startswith("bert/")}
        for name in reader.get_variable_to_shape_map():
            np.testing.assert_array_equal(reader.get_tensor(name), values[name].astype(np.float32))

    def test_a_missing_variable_is_an_error_that_names_it(self, tmp_path):
        prefix, _ = save(tmp_path / "model.ckpt", lambda: encode("postln"))
        heads.sentence_order(CONFIGS["postln"], encode("postln"))
        assert message_of(checkpoint_files.plan_loading, prefix, CONFIGS["postln"]) == (
            "%s fits the model, but holds the encoder without all of its heads, 2 missing: "
            "cls/seq_relationship/output_bias, cls/seq_relationship/output_weights; estimator.pretrain "
            "--new_heads starts them anew" % prefix)
        plan = checkpoint_files.plan_loading(prefix, CONFIGS["postln"],
                                             new_prefixes=heads.PRETRAINING_PARTS)
        assert plan.new == ("cls/seq_relationship/output_bias", "cls/seq_relationship/output_weights")
        with tf.Graph().as_default():
            heads.classifier(CONFIGS["postln"], encode("postln"), num_labels=4)
            assert message_of(checkpoint_files.plan_loading, prefix, CONFIGS["postln"]) == (
                "%s does not fit the model: 2 missing: output_bias, output_weights. It is of the albert_zh "
                "family; shipped configs of its shapes: none" % prefix)

    def test_another_shape_is_an_error_that_names_both(self, tmp_path):
        prefix, _ = save(tmp_path / "model.ckpt",
                         lambda: heads.classifier(CONFIGS["postln"], encode("postln"), num_labels=3))
        heads.classifier(CONFIGS["postln"], encode("postln"), num_labels=4)
        message = message_of(checkpoint_files.plan_loading, prefix, CONFIGS["postln"])
        assert ("2 of another shape: output_bias is [3], wanted [4], "
                "output_weights is [3, 16], wanted [4, 16].") in message

    def test_a_head_that_is_new_by_intent_starts_anew(self, tmp_path):
        prefix, _ = save_pretrained(tmp_path, "preln")
        heads.classifier(CONFIGS["preln"], encode("preln"), num_labels=4)
        plan = checkpoint_files.plan_loading(prefix, CONFIGS["preln"], new_prefixes=heads.CLASSIFIER_PREFIXES)
        assert plan.new == ("loss/LayerNorm/beta", "loss/LayerNorm/gamma", "output_bias", "output_weights")
        assert plan.summary() == (
            "loaded 24 variables from %s; 4 new: loss/LayerNorm/beta, loss/LayerNorm/gamma, output_bias, "
            "output_weights; 7 unused: cls/predictions/output_bias, "
            "cls/predictions/transform/LayerNorm/beta, cls/predictions/transform/LayerNorm/gamma, "
            "cls/predictions/transform/dense/bias, cls/predictions/transform/dense/kernel, "
            "cls/seq_relationship/output_bias, cls/seq_relationship/output_weights"
            % prefix)

    def test_such_a_head_is_loaded_where_it_fits(self, tmp_path):
        prefix, _ = save(tmp_path / "model.ckpt",
                         lambda: heads.classifier(CONFIGS["postln"], encode("postln"), num_labels=4))
        heads.classifier(CONFIGS["postln"], encode("postln"), num_labels=4)
        plan = checkpoint_files.plan_loading(prefix, CONFIGS["postln"],
                                             new_prefixes=heads.CLASSIFIER_PREFIXES)
        assert plan.new == () and plan.unused == ()

    def test_another_family_is_named_with_the_config_that_fits(self, tmp_path):
        mini = albert_config.load("mini")
        prefix, _ = save(tmp_path / "model.ckpt",
                         lambda: modeling.build_encoder(mini, tf.zeros([1, 4], tf.int32)))
        encode("google")
        message = message_of(checkpoint_files.plan_loading, prefix, CONFIGS["google"])
        assert "family is albert_zh, wanted google; vocab_size is 21128, wanted 37;" in message
        assert "layer_scopes is layer_shared, wanted transformer/group_0/inner_group_0, " in message
        assert message.endswith("It is of the albert_zh family; shipped configs of its shapes: mini "
                                "(hidden_act gelu, ln_type postln)")

    def test_more_layers_in_the_file_than_in_the_config_is_an_error(self, tmp_path):
        deep, shallow = dataclasses.replace(CONFIGS["bert"], num_hidden_layers=2), CONFIGS["bert"]
        prefix, _ = save(tmp_path / "model.ckpt",
                         lambda: modeling.build_encoder(deep, tf.zeros([1, 4], tf.int32)))
        encode("bert")
        assert "layer_scopes is layer_0, layer_1, wanted layer_0" in message_of(
            checkpoint_files.plan_loading, prefix, shallow)

    def test_a_pre_ln_classifier_does_not_load_as_post_ln(self, tmp_path):
        prefix, _ = save(tmp_path / "model.ckpt",
                         lambda: heads.classifier(CONFIGS["preln"], encode("preln"), num_labels=4))
        heads.classifier(CONFIGS["postln"], encode("postln"), num_labels=4)
        assert "it is a pre-LN model, and ln_type in the config is postln" in message_of(
            checkpoint_files.plan_loading, prefix, CONFIGS["postln"])

    def test_a_missing_ln_type_is_noted(self, tmp_path):
        prefix, _ = save_pretrained(tmp_path, "postln")
        encode("postln")
        plan = checkpoint_files.plan_loading(prefix, dataclasses.replace(CONFIGS["postln"], ln_type=None))
        assert plan.notes == ("ln_type is not in the config: post-LN is assumed",)
        assert plan.summary().endswith("\nln_type is not in the config: post-LN is assumed")


class TestSlots:

    def build(self, prefix):
        encode("postln")
        for variable in tf.trainable_variables()[:3]:
            for moment in "mv":
                tf.get_variable("%s/%s_%s" % (variable.op.name, prefix, moment), variable.shape,
                                trainable=False)
        tf.train.get_or_create_global_step()

    def test_they_are_resumed_when_asked_for(self, tmp_path):
        prefix, values = save(tmp_path / "model.ckpt", lambda: self.build("lamb"))
        self.build("lamb")
        plan = checkpoint_files.plan_loading(prefix, CONFIGS["postln"], with_slots=True)
        checkpoint_files.load(plan)
        loaded = initial_values()
        assert len(plan.assignment_map) == 24 + 6 and plan.unused == ()
        assert plan.notes == ("6 of 6 optimizer slots are in the file; the others start at 0",)
        assert loaded.pop("global_step") == 0
        for name, value in loaded.items():
            np.testing.assert_array_equal(value, values[name].astype(np.float32))

    def test_they_are_left_out_otherwise(self, tmp_path):
        prefix, _ = save(tmp_path / "model.ckpt", lambda: self.build("lamb"))
        self.build("lamb")
        assert len(checkpoint_files.plan_loading(prefix, CONFIGS["postln"]).assignment_map) == 24

    def test_those_of_another_optimizer_are_not_taken(self, tmp_path):
        prefix, _ = save(tmp_path / "model.ckpt", lambda: self.build("adam"))
        self.build("lamb")
        plan = checkpoint_files.plan_loading(prefix, CONFIGS["postln"], with_slots=True)
        assert plan.notes == ("0 of 6 optimizer slots are in the file; the others start at 0",)


class TestDamage:

    @pytest.mark.parametrize("ending, size, message", [
        (".index", 0, "not a checkpoint, or a damaged one"),
        (".index", 60, "not a checkpoint, or a damaged one"),
        (".data-00000-of-00001", 0, "damaged: a cannot be read"),
        (".data-00000-of-00001", 300, "damaged: a cannot be read"),
    ])
    def test_a_file_that_is_cut_off(self, tmp_path, ending, size, message):
        prefix, _ = save(tmp_path / "model.ckpt", lambda: tf.get_variable("a", [100]))
        os.truncate(prefix + ending, size)
        assert message_of(checkpoint_files.check_data, prefix, ["a"]).startswith(prefix + ": " + message)

    def test_loading_looks_for_it(self, tmp_path):
        prefix, _ = save(tmp_path / "model.ckpt", lambda: encode("postln"))
        os.truncate(prefix + ".data-00000-of-00001", 3000)
        encode("postln")
        plan = checkpoint_files.plan_loading(prefix, CONFIGS["postln"])
        assert "/attention/output/dense/kernel cannot be read: Read less bytes than requested" in message_of(
            checkpoint_files.load, plan)

    def test_a_byte_that_was_altered(self, tmp_path):
        prefix, _ = save(tmp_path / "model.ckpt", lambda: tf.get_variable("a", [100]))
        with open(prefix + ".data-00000-of-00001", "r+b") as stream:
            stream.seek(50)
            stream.write(b"\xff")
        assert "damaged: a cannot be read: Checksum does not match" in message_of(
            checkpoint_files.check_data, prefix, ["a"])

    def test_values_that_are_not_finite(self, tmp_path):
        with tf.Graph().as_default(), tiny_models.session() as session:
            session.run(tf.get_variable("a", initializer=tf.constant([1.0, np.nan])).initializer)
            prefix = tf.train.Saver().save(session, str(tmp_path / "model.ckpt"))
        assert message_of(checkpoint_files.check_data, prefix,
                          ["a"]) == prefix + ": a has values that are not finite"


@pytest.mark.parametrize("name, shape", [("bert/embeddings/word_embeddings", (7,)),
                                         ("bert/embeddings/position_embeddings", ())])
def test_a_variable_of_another_rank_is_named(name, shape):
    shapes = {"bert/embeddings/word_embeddings": (7, 6),
              "bert/encoder/layer_shared/attention/self/query/kernel": (4, 4),
              "bert/encoder/layer_shared/intermediate/dense/kernel": (4, 8),
              "bert/embeddings/token_type_embeddings": (2, 4)}
    assert message_of(checkpoint_files.identify, dict(shapes, **{name: shape})) == (
        "%s has the shape %s, wanted 2 dimensions" % (name, list(shape)))


def test_an_estimator_starts_from_a_checkpoint_accumulates_and_resumes(tmp_path):
    prefix, values = save(tmp_path / "init.ckpt", lambda: tf.get_variable("bert/embeddings/a", [2]))

    def model_fn(features, labels, mode):
        variable = tf.get_variable("bert/embeddings/a", [2])
        loss = tf.reduce_sum(variable) + 0.0 * tf.reduce_sum(features)
        training = optimizers.build_train_op(loss, tf.train.GradientDescentOptimizer(1.0), clip_norm=None,
                                             accumulation_steps=2)
        tf.train.init_from_checkpoint(prefix, {"bert/embeddings/a": variable})
        return tf.estimator.EstimatorSpec(mode, loss=loss, train_op=training.train_op)

    def make():
        return tf.estimator.Estimator(model_fn, str(tmp_path / "run"),
                                      tf.estimator.RunConfig(save_checkpoints_steps=2,
                                                             log_step_count_steps=None))

    def input_fn():
        return tf.data.Dataset.from_tensors(([1.0], [0])).repeat()

    make().train(input_fn, max_steps=3)
    resumed = make()
    resumed.train(input_fn, max_steps=5)
    assert resumed.get_variable_value("global_step") == 5
    np.testing.assert_allclose(resumed.get_variable_value("bert/embeddings/a"),
                               values["bert/embeddings/a"] - 5,
                               rtol=1e-5)


class TestTidying:

    def train(self, folder, most, parts=(3,)):
        def model_fn(features, labels, mode):
            weight, step = tf.get_variable("a", [2]), tf.train.get_or_create_global_step()
            return tf.estimator.EstimatorSpec(
                mode, loss=tf.reduce_sum(weight) + 0.0 * tf.reduce_sum(features),
                train_op=step.assign_add(1),
                training_hooks=[checkpoint_files.TidyHook(str(folder), most)])
        config = tf.estimator.RunConfig(save_checkpoints_steps=1, log_step_count_steps=None,
                                        keep_checkpoint_max=2)
        with checkpoint_files.only_the_hook_removes():
            for end in parts:
                tf.estimator.Estimator(model_fn, str(folder), config).train(
                    lambda: tf.data.Dataset.from_tensors(([1.0], [0])).repeat(), max_steps=end)
        return sorted(path.name for path in folder.glob("*.index"))

    @pytest.mark.parametrize("most, kept", [(0, [0, 1, 2, 3, 4]), (1, [4]), (3, [2, 3, 4])])
    def test_so_many_stay_over_all_parts_although_the_saver_would_keep_two(self, tmp_path, most, kept):
        names = ["model.ckpt-%d" % step for step in kept]
        assert self.train(tmp_path, most, parts=(3, 4)) == [name + ".index" for name in names]
        assert checkpoint_files.kept_in(str(tmp_path)) == [str(tmp_path / name) for name in names]

    def test_graphs_go(self, tmp_path):
        (tmp_path / "notes.meta").write_text("mine")
        self.train(tmp_path, 2)
        assert ([path.name for path in tmp_path.glob("*.meta")] == ["notes.meta"]
                and not (tmp_path / "graph.pbtxt").exists())

    def test_tensorflow_itself_removes_nothing_elsewhere(self, tmp_path):
        elsewhere, folder = tmp_path / "elsewhere", tmp_path / "run"
        self.train(elsewhere, 0)
        self.train(folder, 0)
        (folder / "checkpoint").write_text('model_checkpoint_path: "model.ckpt-3"\n' + "".join(
            'all_model_checkpoint_paths: "%s/model.ckpt-%d"\n' % (elsewhere, step) for step in range(3)))
        before = sorted(os.listdir(str(elsewhere)))
        self.train(folder, 1, parts=(5,))
        assert sorted(os.listdir(str(elsewhere))) == before


def test_a_copy_that_is_not_what_was_sealed_is_not_taken(tmp_path):
    touch(tmp_path, "model.ckpt-7")
    seals.write(str(tmp_path), "model.ckpt-7", {"model.ckpt-7.index": str(tmp_path / "model.ckpt-7.index")},
                {})
    (tmp_path / "model.ckpt-7.index").write_bytes(b"x")
    for path in (tmp_path, tmp_path / "model.ckpt-7"):
        assert ("model.ckpt-7: incomplete: model.ckpt-7.index is not the file that was kept with it"
                in message_of(checkpoint_files.resolve, str(path)))


class TestBatchesTaken:

    @pytest.fixture
    def older(self, tmp_path):
        """A checkpoint as an older release wrote it, with a file beside its values that is not theirs."""
        values = {"global_step": np.int64(7), "a": np.float32([[1, 2], [3, 4]]), "b/c": np.float32(0.1)}
        prefix = str(tmp_path / "model.ckpt-7")
        checkpoint_files.write(prefix, values, "output_dir")
        (tmp_path / "model.ckpt-70.index").write_text("another's")
        return prefix, values

    def test_the_count_is_added_and_all_values_stay(self, tmp_path, older):
        prefix, values = older
        assert not checkpoint_files.counts_batches(prefix)
        checkpoint_files.add_batches_taken(prefix, 14)
        assert checkpoint_files.counts_batches(prefix)
        reader = tf.train.load_checkpoint(prefix)
        found = {name: reader.get_tensor(name) for name in reader.get_variable_to_shape_map()}
        assert found.pop("batches_taken") == 14 and sorted(found) == sorted(values)
        for name, value in values.items():
            assert found[name].dtype == value.dtype and found[name].tobytes() == value.tobytes()
        checkpoint_files.check_data(prefix, values)

    def test_nothing_is_left_but_the_checkpoints_own_files(self, tmp_path, older):
        checkpoint_files.add_batches_taken(older[0], 14)
        assert sorted(os.listdir(str(tmp_path))) == [
            "model.ckpt-7.data-00000-of-00002", "model.ckpt-7.data-00001-of-00002", "model.ckpt-7.index",
            "model.ckpt-70.index"]
        assert (tmp_path / "model.ckpt-70.index").read_text() == "another's"

    def test_where_it_is_cut_off_the_checkpoint_is_as_it_was(self, tmp_path, older, monkeypatch):
        prefix, values = older
        before = sorted(os.listdir(str(tmp_path)))

        def fail(source, target):
            if target.endswith("model.ckpt-7.index"):
                raise OSError("cut off")
            rename(source, target)
        rename = os.replace
        monkeypatch.setattr(os, "replace", fail)
        with pytest.raises(OSError, match="cut off"):
            checkpoint_files.add_batches_taken(prefix, 14)
        assert set(before) <= set(os.listdir(str(tmp_path))) and not checkpoint_files.counts_batches(prefix)
        checkpoint_files.check_data(prefix, values)
