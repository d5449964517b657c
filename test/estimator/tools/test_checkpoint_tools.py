import dataclasses
import json

import numpy as np
import pytest
import tensorflow.compat.v1 as tf

import albert_config
import tiny_models
import tiny_training
from estimator import checkpoints
from estimator.model import heads, modeling
from estimator.weights import model_folder
from saved import save, save_pretrained


@pytest.fixture(autouse=True)
def fresh_graph():
    with tf.Graph().as_default():
        yield


class TestCommands:

    def test_inspect(self, tmp_path, capsys):
        prefix, _ = save_pretrained(tmp_path, "postln")
        assert checkpoints.main(["inspect", "--checkpoint", str(tmp_path)]) == 0
        lines = capsys.readouterr().out.split("\n")
        assert lines[:5] == [
            prefix, "shipped configs of its shapes: none",
            "not told by shapes: hidden_act and ln_type; go by the config that the checkpoint came with",
            "family: albert_zh", "vocab_size: 37"]
        assert "31 variables with 3181 parameters, 0 optimizer slots" in lines
        assert "  bert/embeddings/word_embeddings [37, 6]" in lines

    def test_inspect_advises_no_config_of_other_maths_than_that_beside(self, tmp_path, capsys):
        mini = albert_config.load("mini")
        save(tmp_path / "model.ckpt", lambda: modeling.build_encoder(mini, tf.zeros([1, 4], tf.int32)))

        def told():
            assert checkpoints.main(["inspect", "--checkpoint", str(tmp_path)]) == 0
            return capsys.readouterr().out.split("\n")[1:3]
        shipped = "shipped configs of its shapes: mini (hidden_act gelu, ln_type postln)"
        assert told()[0] == shipped
        for act, beside in (("gelu", shipped), ("swish", "shipped configs of its shapes: none")):
            own = dict(mini.to_dict(), hidden_act=act)
            (tmp_path / "albert_config_own.json").write_text(json.dumps(own))
            assert told() == [
                "config beside it: albert_config_own.json (hidden_act %s, ln_type postln)" % act, beside]

    def test_average(self, tmp_path, capsys):
        prefix, _ = save_pretrained(tmp_path, "postln")
        output = str(tmp_path / "averaged.ckpt")
        assert checkpoints.main(["average", "--checkpoint", prefix, prefix, "--output", output]) == 0
        assert capsys.readouterr().out == output + ": mean of 2 checkpoints: model.ckpt, model.ckpt\n"

    def test_average_of_a_folders_newest(self, tmp_path, capsys):
        for step in (1, 2, 3):
            with tf.Graph().as_default(), tf.Session() as session:
                tf.get_variable("a", initializer=np.float32(step))
                session.run(tf.global_variables_initializer())
                tf.train.Saver().save(session, str(tmp_path / "model.ckpt"), global_step=step)
                names = ["model.ckpt-%d" % number for number in range(1, step + 1)]
                tf.train.update_checkpoint_state(str(tmp_path), names[-1], names)
        flags = ["average", "--checkpoint", str(tmp_path), "--output", str(tmp_path / "mean.ckpt"), "--last"]
        assert checkpoints.main(flags + ["2"]) == 0
        assert "mean of 2 checkpoints: model.ckpt-2, model.ckpt-3" in capsys.readouterr().out
        assert tf.train.load_variable(str(tmp_path / "mean.ckpt"), "a") == 2.5
        assert checkpoints.main(flags + ["4"]) == 1
        assert "--last must be from 1 to the number of checkpoints in" in capsys.readouterr().err

    def test_what_cannot_be_adopted_is_refused_and_nothing_written(self, tmp_path, capsys):
        config = dataclasses.replace(tiny_models.CONFIGS["postln"], vocab_size=len(tiny_training.TOKENS))
        vocabulary = tiny_training.write_vocabulary(tmp_path / "vocab.txt")
        config_file = tmp_path / "config.json"
        config_file.write_text(json.dumps(config.to_dict()))
        classifier, _ = save(tmp_path / "classifier.ckpt", lambda: heads.declare_variables(config, 2))
        pretrained, _ = save(tmp_path / "pretrained.ckpt", lambda: heads.declare_variables(config))

        def adopt(checkpoint, task_name, config_file=config_file, length=12):
            status = checkpoints.main(
                ["adopt", "--checkpoint", checkpoint, "--task_name", task_name, "--vocab_file", vocabulary,
                 "--albert_config_file", str(config_file), "--output_dir", str(tmp_path / "adopted"),
                 "--max_seq_length", str(length)])
            return status, capsys.readouterr().err.replace("estimator.checkpoints adopt: error: ", "")
        assert adopt(classifier, "nonsense")[1].startswith("--task_name must be one of sentence_pair, ")
        assert adopt(pretrained, "lcqmc") == (
            1, pretrained
            + ": holds no output_weights, so no classifier: fine-tune from it with --init_checkpoint\n")
        assert adopt(classifier, "xnli") == (1, classifier
                                             + ": its classifier has 2 outputs, but the task has 3\n")
        assert adopt(classifier, "lcqmc", "tiny") == (
            1, "vocab_size is 21128 in the config, but the vocabulary %s has %d entries\n"
            % (vocabulary, config.vocab_size))
        assert adopt(classifier, "lcqmc", length=13) == (
            1, "--max_seq_length must be in [3, 12], the config's max_position_embeddings; got 13\n")
        assert not (tmp_path / "adopted").exists()
        assert adopt(classifier, "lcqmc")[0] == 0

    def test_a_reader_and_a_chooser_are_adopted(self, tmp_path, capsys):
        config = dataclasses.replace(tiny_models.CONFIGS["postln"], vocab_size=len(tiny_training.TOKENS),
                                     max_position_embeddings=256)
        (tmp_path / "config.json").write_text(json.dumps(config.to_dict()))
        vocabulary = tiny_training.write_vocabulary(tmp_path / "vocab.txt")
        for kind, task, names in (("spans", "cmrc2018",
                                   {"cls/squad/output_weights", "cls/squad/output_bias"
                                    }), ("choices", "race", {"output_weights", "output_bias"}),
                                  ("classes", "copa", {"output_weights", "output_bias"})):
            checkpoint, _ = save(tmp_path / (task + ".ckpt"), lambda kind=kind: heads.declare_variables(
                config, 2 if kind == "classes" else 0, kind=kind))
            assert checkpoints.main(
                ["adopt", "--checkpoint", checkpoint, "--task_name", task, "--vocab_file", vocabulary,
                 "--albert_config_file", str(tmp_path / "config.json"), "--output_dir", str(tmp_path / task),
                 "--max_seq_length", "256"]) == 0
            capsys.readouterr()
            model = model_folder.read(str(tmp_path / task))
            assert (model.kind, model.task) == (kind, task)
            assert names < {name for name, _ in tf.train.list_variables(str(tmp_path / task))}
        assert model_folder.read(str(tmp_path / "cmrc2018")).reading == model_folder.Reading(
            128, 64, 30, None)

    def test_a_model_of_a_bert_ner_script_is_adopted_by_the_numbers_of_its_outputs(self, tmp_path, capsys):
        config = dataclasses.replace(tiny_models.CONFIGS["postln"], vocab_size=len(tiny_training.TOKENS),
                                     max_position_embeddings=128)
        (tmp_path / "config.json").write_text(json.dumps(config.to_dict()))
        names = ["B-PER", "I-ORG", "O", "X", "B-ORG", "I-PER", "[CLS]"]    # from 1 on; 0 is padding
        (tmp_path / "ids.json").write_text(json.dumps({name: place for place, name in enumerate(names, 1)}))

        def declare():
            heads.declare_variables(config, 8)
            tf.get_variable(heads.TRANSITIONS, [8, 8])
        checkpoint, values = save(tmp_path / "ner.ckpt", declare)
        flags = ["adopt", "--checkpoint", checkpoint, "--task_name", "tagging", "--vocab_file",
                 tiny_training.write_vocabulary(tmp_path / "vocab.txt"), "--albert_config_file",
                 str(tmp_path / "config.json"), "--output_dir", str(tmp_path / "out")]
        assert checkpoints.main(flags) == 1
        assert "task tagging: give --label2id, and no --labels" in capsys.readouterr().err
        assert checkpoints.main(flags + ["--label2id", str(tmp_path / "ids.json")]) == 0
        assert "left out, since they are labels of no character: X, [CLS]" in capsys.readouterr().out
        model = model_folder.read(str(tmp_path / "out"))
        assert (model.kind, model.labels) == ("tags", ("PER", "ORG"))
        assert model.tagging == model_folder.Tagging(32, True)
        order = [3, 1, 6, 5, 2]                # of O, B-PER, I-PER, B-ORG, I-ORG
        found = tf.train.load_checkpoint(str(tmp_path / "out"))
        for name in ("output_weights", "output_bias"):
            assert (found.get_tensor(name) == values[name][order]).all()
        assert (found.get_tensor(heads.TRANSITIONS) == values[heads.TRANSITIONS][order][:, order]).all()

    def test_a_users_mistake_is_one_line(self, tmp_path, capsys):
        assert checkpoints.main(["inspect", "--checkpoint", str(tmp_path)]) == 1
        assert capsys.readouterr().err.startswith("estimator.checkpoints inspect: error: --checkpoint: ")

    def test_without_a_command_it_says_how(self, capsys):
        assert checkpoints.main([]) == 2
        assert "python -m estimator.checkpoints inspect" in capsys.readouterr().err
