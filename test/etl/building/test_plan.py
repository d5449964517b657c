import fcntl
import os

import pytest

from etl.building import plan as module
from etl.building.plan import BuildConfig, drop_other_builds, plan_build, work_folder
from etl.common.command_line import UserError, flags_of, from_flags
from etl.common.files import temporary_path, write_text
from etl.samples.instances import InstanceConfig
from etl.text.tokenization import TokenizerConfig


@pytest.fixture
def config(tmp_path, corpus, vocab_file):
    return BuildConfig(input_file=(corpus,), output_dir=str(tmp_path / "out"), vocab_file=vocab_file,
                       instances=InstanceConfig(max_seq_length=24))


def with_flags(config, **changes):
    return from_flags(BuildConfig, dict(flags_of(config), **changes))


@pytest.mark.parametrize("changes, message", [
    ({"num_shards": 0}, "num_shards must be at least 1, got 0"),
    ({"range_bytes": 0}, "range_bytes must be at least 1, got 0"),
    ({"eval_fraction": 1.0}, "eval_fraction must be in [0, 1), got 1.0"),
    ({"max_bad_fraction": -0.5}, "max_bad_fraction must be in [0, 1), got -0.5"),
    ({"tokenizer": "sentencepiece"}, "tokenizer sentencepiece needs spm_model_file"),
    ({"tokenizer": "wordpiece", "spm_model_file": "x.model"},
     "tokenizer wordpiece takes no spm_model_file, got x.model"),
    ({"direct_num_workers": -1}, "direct_num_workers must be at least 0, got -1"),
    ({"direct_running_mode": "multi_threading"},
     "direct_running_mode multi_threading silently loses elements in Beam 2.48: use "
     "multi_processing or in_memory"),
    ({"direct_running_mode": "x"}, "direct_running_mode must be in_memory or multi_processing, got x"),
    ({"direct_running_mode": "in_memory", "direct_num_workers": 2},
     "direct_running_mode in_memory has one worker, got direct_num_workers 2"),
    ({"runner": "FlinkRunner", "direct_num_workers": 2},
     "direct_num_workers and direct_running_mode are for DirectRunner, got runner FlinkRunner; use "
     "parallelism"), ({"runner": "PortableRunner"},
                      "runner PortableRunner needs job_endpoint, HOST:PORT of the engine's job server"),
    ({"output_dir": "gs://x/y"},
     "output_dir must be on a local or shared file system, got gs://x/y; mount it, or copy the result"),
    ({"max_seq_length": 7}, "max_seq_length must be at least 8, got 7"),
    ({"max_seq_length": -7}, "max_seq_length must be at least 8, got -7"),
    ({"masked_lm_prob": 2.0}, "masked_lm_prob must be in (0, 1), got 2.0"),
    ({"masked_lm_prob": 1.0}, "masked_lm_prob must be in (0, 1), got 1.0"),
    ({"masked_lm_prob": float("inf")}, "masked_lm_prob must be in (0, 1), got inf"),
])
def test_bad_flags(changes, message):
    with pytest.raises(ValueError) as error:
        from_flags(BuildConfig, changes)
    assert str(error.value) == message


def test_the_defaults_are_those_of_the_samples():
    assert BuildConfig().instances == InstanceConfig()


def test_a_model_takes_the_place_of_the_vocabulary():
    assert BuildConfig(spm_model_file="x.model").tokenizer_config == TokenizerConfig(None, True, "x.model")
    assert BuildConfig(vocab_file="v.txt",
                       do_lower_case=False).tokenizer_config == TokenizerConfig("v.txt", False)


def test_a_tokenizer_that_fits_changes_nothing():
    for changes in ({}, {"tokenizer": "wordpiece"}):
        assert BuildConfig(vocab_file="v.txt", **changes).tokenizer_config == TokenizerConfig("v.txt")
    assert BuildConfig(tokenizer="sentencepiece",
                       spm_model_file="x.model").tokenizer_config == TokenizerConfig(None, True, "x.model")


def test_planning_writes_nothing(config):
    plan = plan_build(config)
    assert not os.path.exists(config.output_dir)
    assert os.path.dirname(plan.job.work_dir) == os.path.join(config.output_dir, ".work")
    assert [file_range.begin for file_range in plan.ranges] == [0, 0]
    assert plan.input_bytes == sum(entry["bytes"] for entry in plan.inputs)
    assert plan.job.num_shards == (("train", 1), ("eval", 1)) and plan.num_workers == 1
    assert plan.vocab_path == config.vocab_file and plan.job.stop_at_bad_records


@pytest.mark.parametrize("changes, shards", [
    ({"num_shards": 5}, (("train", 5), ("eval", 1))), ({"eval_fraction": 0.0}, (("train", 1), ("eval", 0)))])
def test_number_of_shards(config, changes, shards):
    assert plan_build(with_flags(config, **changes)).job.num_shards == shards


def test_large_input_gets_more_shards_and_all_cores(config, monkeypatch):
    monkeypatch.setattr(module, "SHARD_BYTES", 10000)
    monkeypatch.setattr(module, "PARALLEL_BYTES", 1000)
    monkeypatch.setattr(module, "usable_cores", lambda: 7)
    plan = plan_build(config)
    record_bytes = 1.7 * plan.input_bytes
    assert plan.job.num_shards == (("train", 1 + int(10 * record_bytes / 10000)),
                                   ("eval", 1 + int(0.05 * record_bytes / 10000)))
    assert plan.num_workers == 7


@pytest.mark.parametrize("changes, workers", [
    ({"direct_num_workers": 3}, 3), ({"direct_running_mode": "in_memory"}, 1),
    ({"direct_running_mode": "multi_processing"}, 7),
    ({"direct_running_mode": "multi_processing", "direct_num_workers": 2}, 2)])
def test_number_of_workers(config, monkeypatch, changes, workers):
    monkeypatch.setattr(module, "usable_cores", lambda: 7)
    assert plan_build(with_flags(config, **changes)).num_workers == workers


@pytest.mark.parametrize("changes, same", [
    ({"random_seed": 1}, False), ({"max_seq_length": 32}, False), ({"range_bytes": 100}, False),
    ({"num_shards": 2}, False), ({"do_lower_case": False}, False), ({"duplicates": "drop"}, False),
    ({"direct_num_workers": 2}, True), ({"max_bad_fraction": 0.5}, True)])
def test_the_work_folder_is_named_by_what_decides_the_result(config, changes, same):
    one, other = plan_build(config), plan_build(with_flags(config, **changes))
    assert (one.job.work_dir == other.job.work_dir) == same


def test_an_engine_goes_on_with_the_work_of_another(config, monkeypatch, tmp_path):
    monkeypatch.chdir(str(tmp_path))
    names = {"input_file": (os.path.relpath(config.input_file[0]),),
             "vocab_file": os.path.relpath(config.vocab_file)}
    here = with_flags(config, **names)
    there = with_flags(here, runner="PortableRunner", job_endpoint="x:1", parallelism=2)
    one, other = plan_build(here), plan_build(there)
    assert one.job.work_dir == other.job.work_dir
    assert (one.job.tokenizer.vocab_file == here.vocab_file
            and other.job.tokenizer.vocab_file == config.vocab_file)
    assert ({os.path.isabs(entry.path) for entry in one.ranges} == {False}
            and {os.path.isabs(entry.path) for entry in other.ranges} == {True})


def test_another_vocabulary_another_work_folder(config, tmp_path):
    copy = tmp_path / "v.txt"
    copy.write_bytes(open(config.vocab_file, "rb").read())
    config = with_flags(config, vocab_file=str(copy))
    before = plan_build(config).job.work_dir
    copy.write_bytes(copy.read_bytes() + b"x\n")
    assert plan_build(config).job.work_dir != before


def test_albert_zh_labels_need_twins(config):
    with pytest.raises(UserError,
                       match="--masked_lm_labels albert_zh: .* has no ## entries for Han characters"):
        plan_build(with_flags(config, masked_lm_labels="albert_zh"))


def test_missing_user_dictionary(config):
    with pytest.raises(OSError, match="gone.txt"):
        plan_build(with_flags(config, user_dict="gone.txt"))


def test_work_folder_holds_a_lock(config):
    plan = plan_build(config)
    with work_folder(plan):
        with pytest.raises(UserError) as error:
            with work_folder(plan_build(with_flags(config, random_seed=1))):
                raise AssertionError("two builds at once")
        assert str(error.value) == "--output_dir: another build is running in %s" % config.output_dir
    with open(os.path.join(config.output_dir, ".work", "lock")) as lock:
        fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)


@pytest.mark.parametrize("error", [UserError, OSError, KeyboardInterrupt])
@pytest.mark.parametrize("before", [[], ["mine"], [".work/0123"]])
def test_a_mistake_of_the_user_leaves_nothing_but_what_was_there(config, error, before):
    plan = plan_build(config)
    for path in before:
        os.makedirs(os.path.join(config.output_dir, path))
    with pytest.raises(error):
        with work_folder(plan):
            raise error("x")
    found = {path for path in ("", "mine", ".work", ".work/0123")
             if os.path.exists(os.path.join(config.output_dir, path))}
    if error == UserError:
        assert found == {"": set(), "mine": {"", "mine"},
                         ".work/0123": {"", ".work", ".work/0123"}}["".join(before)]
    assert os.path.isdir(plan.job.work_dir) == (error != UserError)


def test_drop_other_builds(config):
    plan = plan_build(config)
    parent = os.path.join(config.output_dir, ".work")
    for path in ("0123456789abcdef/chunks/000000.json", "0123456789abcdef/runs/000000-0000.run",
                 "fedcba9876543210/workers.log",
                 "fedcba9876543210/shards/eval/tf_examples-00000-of-00001.tfrecord.extents", "notes",
                 "lost+found/x", ".DS_Store",
                 "0123456789abcdee/notes", "0123456789abcdef.bak/chunks/000000.json"):
        write_text(os.path.join(parent, path), "x")
    os.symlink(os.path.join(parent, "lost+found"), os.path.join(parent, "0000000000000000"))
    with work_folder(plan):
        drop_other_builds(plan)
        assert sorted(os.listdir(parent)) == sorted([
            "lock", os.path.basename(plan.job.work_dir), "notes", "lost+found", ".DS_Store",
            "0123456789abcdee", "0123456789abcdef.bak", "0000000000000000"])
        assert os.listdir(os.path.join(parent, "lost+found")) == ["x"]
        assert os.listdir(os.path.join(parent, "0123456789abcdee")) == ["notes"]
        assert os.path.exists(os.path.join(parent, "0123456789abcdef.bak", "chunks", "000000.json"))


@pytest.mark.parametrize("name", [".work", "eval", "dead_letters", "HASH"])
def test_a_link_in_the_place_of_a_folder_is_refused_and_left(config, tmp_path, name):
    plan = plan_build(config)
    path = plan.job.work_dir if name == "HASH" else os.path.join(config.output_dir, name)
    write_text(str(tmp_path / "elsewhere" / "x"), "x")
    os.makedirs(os.path.dirname(path))
    os.symlink(str(tmp_path / "elsewhere"), path)
    with pytest.raises(UserError) as error:
        with work_folder(plan):
            raise AssertionError("through a link")
    assert (str(error.value) == "--output_dir: %s is a link; a build removes files in its own folder only: "
            "remove the link" % path)
    assert os.listdir(str(tmp_path / "elsewhere")) == ["x"] and os.path.islink(path)


def test_what_a_killed_build_was_writing_goes(config):
    plan = plan_build(config)
    out = config.output_dir
    for name in ("manifest.json", "eval/x.tfrecord", "dead_letters/bad_records.jsonl"):
        write_text(temporary_path(os.path.join(out, name)), "x")
    write_text(os.path.join(out, "mine.tmp-1"), "x")
    with work_folder(plan):
        with pytest.raises(UserError):         # while a build holds the lock, nothing of it goes
            with work_folder(plan):
                pass
        assert sorted(os.listdir(out)) == [".work", "dead_letters", "eval", "mine.tmp-1"]
        assert os.listdir(os.path.join(out, "eval")) == os.listdir(os.path.join(out, "dead_letters")) == []


def test_a_copy_of_hard_links_has_a_log_of_its_own(config, tmp_path):
    plan = plan_build(config)
    write_text(str(tmp_path / "original.log"), "before\n")
    os.makedirs(plan.job.work_dir)
    os.link(str(tmp_path / "original.log"), plan.log_path)
    with work_folder(plan):
        with open(plan.log_path, "a") as log:
            log.write("after\n")
    assert ((tmp_path / "original.log").read_text() == "before\n"
            and open(plan.log_path).read() == "before\nafter\n")


def test_the_work_folder_does_not_depend_on_where_the_output_goes(config, tmp_path):
    other = with_flags(config, output_dir=str(tmp_path / "moved" / "there"))
    assert os.path.basename(plan_build(config).job.work_dir) == os.path.basename(
        plan_build(other).job.work_dir)


def test_output_folder_that_is_a_file(config, vocab_file):
    with pytest.raises(UserError, match="^--output_dir: .* is a file, not a folder$"):
        plan_build(with_flags(config, output_dir=vocab_file))


def test_a_refused_build_leaves_the_other_alone(config):
    plan = plan_build(config)
    with work_folder(plan):
        with pytest.raises(UserError):
            with work_folder(plan_build(with_flags(config, random_seed=1))):
                raise AssertionError("two builds at once")
        assert os.listdir(os.path.join(config.output_dir, ".work")) and os.path.isdir(plan.job.work_dir)
