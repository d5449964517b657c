import pytest

from estimator.finetuning import flags as finetune_flags
from estimator.finetuning.flags import FinetuneConfig
from etl.common import command_line


@pytest.mark.parametrize("flags, message", [
    (["--warmup_proportion", "1.5"], "warmup_proportion must be in [0, 1], got 1.5"),
    (["--num_train_epochs", "0"], "num_train_epochs must be above 0, got 0.0"),
    (["--do_train=false", "--do_eval=false"], "nothing to do"),
    (["--task_name", "tnews2"], "invalid choice: 'tnews2'"),
    (["--epochs", "3"], "unrecognized arguments: --epochs"),
    (["--task_name", "lcqmc"],
     "data_dir must name the folder of lcqmc; only sentence_pair has sample data"),
    (["--task_name", "lcqmc", "--labels", "a", "b"],
     "columns and labels are for sentence_pair, single_sentence, multi_label; lcqmc has its own"),
    (["--labels", "a", "a"], "labels must be at least two, all different, got a, a"),
    (["--columns", "text_a=1", "label=2"], "columns must be label=… text_a=… text_b=…, got text_a=1 label=2"),
    (["--label_threshold", "1"], "label_threshold must be dev or a number in (0, 1), got 1"),
    (["--seeds", "1,x"], "seeds must be integers separated by commas, got 1,x"),
    (["--seeds", "1,2,1"], "seeds must all be different, got 1,2,1"),
    (["--seeds", "1", "--do_train"], "seeds is 1, but do_eval is false"),
    (["--preset", "mnli"], "invalid choice: 'mnli'"),
])
def test_a_flag_out_of_range_is_one_line(flags, message, capsys):
    with pytest.raises(SystemExit) as stop:
        command_line.parse("estimator.finetune", "", FinetuneConfig, flags)
    errors = capsys.readouterr().err
    assert stop.value.code == 2 and message in errors and errors.count("\n") == 1


def test_a_preset_fills_in_what_was_not_given():
    config = FinetuneConfig(preset="wsc", data_dir="x", learning_rate=3e-5)
    assert (config.task_name, config.max_seq_length, config.train_batch_size) == ("wsc", 128, 16)
    assert (config.learning_rate, config.num_train_epochs) == (3e-5, 10)
    plain = FinetuneConfig()
    assert {name: getattr(plain, name) for name in finetune_flags.DEFAULTS} == finetune_flags.DEFAULTS


def test_without_training_task_and_length_are_left_to_the_models_folder():
    for flags in (dict(do_train=False), dict(do_predict=True), dict(do_eval=True)):
        config = FinetuneConfig(**flags)
        assert (config.task_name, config.max_seq_length, config.train_batch_size) == (None, None, 32)


def test_seeds_and_columns_are_read():
    config = FinetuneConfig(seeds="3,-1", task_name="single_sentence", data_dir="x",
                            columns=("text_a=評論", "label=a=b"))
    assert config.seed_list() == [3, -1] and config.columns_by_role() == {"text_a": "評論", "label": "a=b"}


@pytest.mark.parametrize("flags, wanted", [
    ({"task_name": "cmrc2018"}, (384, 128, 64, 30)), ({"preset": "cmrc2018"}, (512, 128, 64, 50)),
    ({"preset": "cmrc2018", "max_answer_length": 9, "doc_stride": 7}, (512, 7, 64, 9)),
    ({"task_name": "c3"}, (512, None, None, None)), ({"task_name": "lcqmc"}, (128, None, None, None)),
    ({"task_name": "cmrc2018", "do_train": False, "do_eval": True}, (None, None, None, None))])
def test_defaults_of_kinds(flags, wanted):
    config = FinetuneConfig(data_dir="x", **{"do_train": True, **flags})
    assert (config.max_seq_length, config.doc_stride, config.max_query_length,
            config.max_answer_length) == wanted


def test_a_threshold_is_a_number():
    with pytest.raises(ValueError, match="null_score_diff_threshold must be a number, got nan"):
        FinetuneConfig(task_name="squad_v2", data_dir="x", null_score_diff_threshold=float("nan"))
