"""A walk through what new users do wrong: the words as they type them, and the whole line that they get back.

All stand in one folder; whatever is mistaken there, every file in it stays as it was and none comes to it.
"""
import asyncio
import dataclasses
import importlib
import io
import json
import os
import re
import resource
import shlex
import shutil
import socket
import subprocess
import sys

import numpy as np
import pytest

import albert_config
import pretrained
import tiny_training
from estimator.weights import checkpoint_files, model_folder
from tiny_training import CONFIG, TOKENS, WORDS

ROOT = os.path.dirname(os.path.dirname(os.path.abspath(__file__)))
TEXT = "天地人山。\n水火木金土。\n\n日月星风。\n云雨天地人。\n\n" * 4

BUILD = "etl.build_pretrain --vocab_file vocab.txt --max_seq_length 16 --output_dir new"
PRETRAIN = ("estimator.pretrain --albert_config_file config.json --num_train_steps 2 --train_batch_size 4 "
            "--eval_batch_size 4 --backend cpu --output_dir new")
RECORDS = PRETRAIN + " --input_file records"
FINETUNE = ("estimator.finetune --max_seq_length 8 --train_batch_size 3 --eval_batch_size 4 "
            "--num_train_epochs 1 --backend cpu --output_dir new")
PAIRS = FINETUNE + " --data_dir pairs --init_checkpoint pretrained"


def pairs(count):
    """Lines of labelled pairs: is it the same word?"""
    return ["%s\t%s\t%d" % (WORDS[number % 15], WORDS[(number + number % 2) % 15], 1 - number % 2)
            for number in range(count)]


def write(path, lines, encoding="utf-8"):
    os.makedirs(os.path.dirname(path) or ".", exist_ok=True)
    with open(path, "wb") as stream:
        stream.write("".join(line + "\n" for line in lines).encode(encoding))


def write_checkpoint(prefix, values):
    checkpoint_files.write(prefix, values, "prefix")
    model_folder.write_state(os.path.dirname(prefix), [os.path.basename(prefix)])


def write_inputs():
    """Texts, vocabularies, configs and labelled files: good ones, and others with one thing wrong each."""
    for name, encoding in (("corpus", "utf-8"), ("gb18030", "gb18030"), ("utf16", "utf-16"),
                           ("bom", "utf-8-sig")):
        write(name + ".txt", TEXT.splitlines(), encoding)
    write("windows.txt", TEXT.replace("\n", "\r\n").split("\n"), "utf-16")
    write("blank.txt", ["", ""])
    write("wiki_00", [json.dumps({"title": "天", "text": "天地人。"}, ensure_ascii=False)])
    for name, tokens in (("vocab", TOKENS), ("no_mask", [token for token in TOKENS if token != "[MASK]"]),
                         ("twice", TOKENS + ("天",)), ("short", TOKENS[:-1])):
        write(name + ".txt", tokens)
    for name, changes in (("config", {}), ("typo", {"hiden_size": 16}), ("heads", {"num_attention_heads": 3}),
                          ("wide", {"hidden_size": 32}), ("google", {"num_hidden_groups": 1})):
        write(name + ".json", [json.dumps(dict(CONFIG.to_dict(), **changes))])
    write("quotes.json", ["{'vocab_size': 20}"])
    for folder, train, encoding in (("pairs", pairs(20), "utf-8"), ("column", pairs(3) + ["天\t地"], "utf-8"),
                                    ("label", pairs(3) + ["天\t地\t2"], "utf-8"),
                                    ("header", ["a\tb\tc"] + pairs(3), "utf-8"),
                                    ("empty_text", pairs(3) + ["\t地\t0"], "utf-8"),
                                    ("gb18030", pairs(3), "gb18030")):
        write(folder + "/train.tsv", train, encoding)
        write(folder + "/dev.tsv", pairs(5))
    write("no_dev/train.tsv", pairs(20))
    os.makedirs("unfinished/.work")


def write_checkpoints():
    """Checkpoints that are old, of something else, or damaged."""
    reader = checkpoint_files.open_reader("pretrained/model.ckpt-9")
    weights = {name: reader.get_tensor(name)
               for name in reader.get_variable_to_shape_map() if name != "global_step"}
    write_checkpoint("old/albert_model.ckpt", weights)
    write_checkpoint("keras/model.ckpt", {"dense/kernel": np.zeros([2, 2], np.float32)})
    write_checkpoint("lacking/model.ckpt",
                     {name: value for name, value in weights.items() if name != "bert/pooler/dense/bias"})
    shutil.copytree("trained", "no_step")
    write_checkpoint("no_step/model.ckpt-3", weights)
    shutil.copytree("pretrained", "cut_off")
    os.truncate("cut_off/model.ckpt-9.data-00000-of-00001", 1000)


@pytest.fixture(scope="module")
def workplace(tmp_path_factory):
    """A folder in which the whole road has been gone once."""
    folder = tmp_path_factory.mktemp("workplace")
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(folder)
        write_inputs()
        tiny_training.write_build("records")
        tiny_training.write_build("other_records", num_train=21)
        os.mkdir("pretrained")
        pretrained.write_pretrained(folder / "pretrained")
        for line in (BUILD + " --input_file corpus.txt --output_dir built --eval_fraction 0",
                     RECORDS + " --output_dir trained", PAIRS + " --output_dir tuned",
                     "serving.export --checkpoint_dir tuned --output_dir export --version 7"):
            assert run(line) == 0
        write_checkpoints()
        shutil.copytree("export", "half_copied")
        shutil.rmtree("half_copied/7/variables")
    return folder


@pytest.fixture
def here(workplace, monkeypatch):
    """One stands in the folder; at the end everything in it must be as it was."""
    monkeypatch.chdir(workplace)
    before = state_of(workplace)
    yield workplace
    asyncio.set_event_loop_policy(None)        # the server's own would stay for all tests to come
    assert state_of(workplace) == before


def state_of(folder):
    """What tells a file from another that was put in its place, by path; of folders the path alone."""
    return {path: path.is_dir() or (path.stat().st_ino, path.stat().st_size, path.stat().st_mtime_ns)
            for path in folder.rglob("*")}


def run(line):
    """The exit status of a command, given as behind `python -m`."""
    command, *words = shlex.split(line)
    try:
        return importlib.import_module(command).main(words)
    except SystemExit as end:
        return end.code


def said(capsys, folder):
    """What stands on standard error, without what differs from run to run."""
    text = capsys.readouterr().err.replace(str(folder), "FOLDER")
    return re.sub(r"[0-9a-f]{64}", "SHA",
                  re.sub(r"\.tmp-\d+|\.chinese-albert-tmp-[0-9a-f]{32}|tempstate\d+", "TEMPORARY", text))


SHIPPED = ", ".join(albert_config.shipped_names())
NO_EXPORT = "no exported model here: run python -m serving.export first"
FIELDS = ", ".join(sorted(field.name for field in dataclasses.fields(CONFIG)))
NOT_GB18030 = ("not UTF-8: invalid continuation byte at byte 0xcc; is it GB18030? iconv -f GB18030 -t UTF-8 "
               "converts it")
NOT_UTF16 = "not UTF-8: invalid start byte at byte 0xff; is it UTF-16? iconv -f UTF-16 -t UTF-8 converts it"
UTF16 = "UTF-16: convert it: iconv -f UTF-16 -t UTF-8"
SPECIALS = "a vocabulary must hold [PAD] [UNK] [CLS] [SEP] [MASK]; missing: "
NO_CHECKPOINT = "no checkpoint there; looked for albert_model.ckpt.index, bert_model.ckpt.index, *.index"
FAMILY = " It is of the albert_zh family; shipped configs of its shapes: none"
OLD = FINETUNE + " --data_dir pairs --vocab_file vocab.txt"
OTHER_RUN = ". Use another folder, the previous flags, or --allow_changes to continue with the new ones"
ANOTHER = ": give another folder, or remove it"

MISTAKES = [
    # Texts
    (BUILD + " --input_file nowhere.txt", "--input_file: nowhere.txt matches no file"),
    (BUILD + " --input_file 'corpora/*.txt'", "--input_file: corpora/*.txt matches no file"),
    (BUILD + " --input_file pairs", "--input_file: pairs is a folder, not a file"),
    (BUILD + " --input_file gb18030.txt", "gb18030.txt: line 1: " + NOT_GB18030),
    (BUILD + " --input_file utf16.txt", "--input_file: utf16.txt: " + UTF16),
    (BUILD + " --input_file windows.txt", "--input_file: windows.txt: " + UTF16),
    (BUILD + " --input_file wiki_00", "--input_file: wiki_00: line 1 holds JSON: give --input_format jsonl, "
     "and --text_field, the field of the text: one of title, text"),
    (BUILD + " --input_file blank.txt", "--input_file: no text in blank.txt"),
    (BUILD + " --input_file '*.txt'", "--input_file: vocab.txt is the vocabulary: give text files only"),
    (BUILD + " --input_file corpus.txt --output_dir corpus.txt",
     "--output_dir: FOLDER/corpus.txt is a file, not a folder"),
    (BUILD + " --input_file corpus.txt --output_dir tuned",
     "--output_dir: tuned holds a model: give another folder"),
    # Vocabularies
    (BUILD + " --input_file corpus.txt --vocab_file nowhere.txt", "No such file or directory: nowhere.txt"),
    ("etl.build_pretrain --output_dir new --input_file vocab.txt --vocab_file corpus.txt",
     "corpus.txt: " + SPECIALS + "[PAD] [UNK] [CLS] [SEP] [MASK]"),
    (BUILD + " --input_file corpus.txt --vocab_file no_mask.txt", "no_mask.txt: " + SPECIALS + "[MASK]"),
    (BUILD + " --input_file corpus.txt --vocab_file twice.txt",
     "twice.txt: lines 6 and 21 hold the same entry: 天"),
    # Records
    (PRETRAIN + " --input_file corpus.txt", "--input_file: corpus.txt: record 0: the length does not match "
     "its checksum: no TFRecord, or damaged; python -m etl.build_pretrain makes records from text"),
    (PRETRAIN + " --input_file nowhere",
     "--input_file: nowhere: no such file or folder: run python -m etl.build_pretrain first"),
    (PRETRAIN + " --input_file 'nowhere/*.tfrecord'", "--input_file: nowhere/*.tfrecord matches no file"),
    (PRETRAIN + " --input_file trained",
     "trained/manifest.json: no such file; python -m etl.build_pretrain writes it when a build is complete"),
    (PRETRAIN + " --input_file unfinished", "--input_file: unfinished holds an unfinished build: run the "
     "same python -m etl.build_pretrain again to resume it"),
    (PRETRAIN + " --input_file 'records/*.tfrecord'", "--input_file names TFRecord files, which do not say "
     "how they were made: give --max_seq_length, --vocab_file, --max_predictions_per_seq; or give the folder "
     "itself, --input_file records: its manifest has these"),
    (PRETRAIN + " --input_file built", "--do_eval: built has no records to evaluate on: build with "
     "--eval_fraction above 0, name files by --eval_input_file, or give --do_eval false"),
    (RECORDS + " --train_batch_size 21",
     "--train_batch_size is 21, but records holds only 20 training records"),
    (RECORDS + " --max_seq_length 1024",
     "--max_seq_length is 1024, but the records have 8, says records/manifest.json"),
    (RECORDS + " --backend npu",
     "--backend npu: the Python package npu_bridge is not installed; it comes with Ascend's CANN"),
    # Configs
    (RECORDS + " --albert_config_file tiny",
     "vocab_size is 21128 in tiny, but the vocabulary of the records, records/vocab.txt, has 20 entries"),
    (RECORDS + " --albert_config_file huge",
     "albert_config_file: huge is neither a file nor one of the shipped configs: " + SHIPPED),
    (RECORDS + " --albert_config_file typo.json", "typo.json: unknown field hiden_size; known are " + FIELDS),
    (RECORDS + " --albert_config_file heads.json",
     "heads.json: hidden_size must be a multiple of num_attention_heads, which is 3, got 16"),
    (RECORDS + " --albert_config_file quotes.json", "quotes.json: not a JSON file in UTF-8: Expecting "
     "property name enclosed in double quotes: line 1 column 2 (char 1)"),
    (FINETUNE + " --data_dir pairs/train.tsv",
     "--data_dir: pairs/train.tsv is a file, not a folder: name the one it lies in"),
    (FINETUNE + " --data_dir nowhere", "--data_dir: nowhere: no such folder"),
    (FINETUNE + " --data_dir no_dev", "task sentence_pair: no such file: no_dev/dev.tsv or no_dev/dev.csv or "
     "no_dev/dev.json or no_dev/dev.jsonl or no_dev/dev.txt"),
    (FINETUNE + " --data_dir column",
     "column/train.tsv: line 4: wanted 3 field(s): text_a, text_b, label; got 2"),
    (FINETUNE + " --data_dir label",
     "label/train.tsv: line 4: unknown label '2'; task sentence_pair has 0, 1"),
    (FINETUNE + " --data_dir header",
     "header/train.tsv: line 1: unknown label 'c'; task sentence_pair has 0, 1"),
    (FINETUNE + " --data_dir empty_text", "empty_text/train.tsv: line 4: text_a is empty"),
    (FINETUNE + " --data_dir gb18030", "gb18030/train.tsv: line 1: " + NOT_GB18030),
    (PAIRS + " --train_batch_size 21", "--train_batch_size is 21, but there are only 20 training examples"),
    (PAIRS + " --max_seq_length 513",
     "--max_seq_length must be in [3, 16], the config's max_position_embeddings; got 513"),
    (PAIRS + " --vocab_file short.txt", "--vocab_file: short.txt is not the vocabulary that the model was "
     "trained with, pretrained/vocab.txt: it has 19 entries, that one 20"),
    # Checkpoints
    (RECORDS + " --init_checkpoint pairs", "--init_checkpoint: pairs: " + NO_CHECKPOINT),
    (RECORDS + " --init_checkpoint trained/model.ckpt-7.index", "--init_checkpoint: "
     "trained/model.ckpt-7.index: no checkpoint there; looked for trained/model.ckpt-7.index"),
    (RECORDS + " --init_checkpoint pretrained --albert_config_file wide.json", "pretrained/model.ckpt-9 does "
     "not fit the model: hidden_size is 16, wanted 32; 27 of another shape: bert/embeddings/LayerNorm/beta "
     "is [16], wanted [32], bert/embeddings/LayerNorm/gamma is [16], wanted [32], "
     "bert/embeddings/position_embeddings is [16, 16], wanted [16, 32] and 24 more."
     + FAMILY), (FINETUNE + " --data_dir pairs --init_checkpoint nowhere", "--init_checkpoint: nowhere: no "
                 "such file or folder: run python -m estimator.pretrain first, give a checkpoint, or none to "
                 "start from random values"),
    (FINETUNE + " --data_dir pairs --init_checkpoint old", "--init_checkpoint: beside old/albert_model.ckpt "
     "there is no model.json to describe it: give --albert_config_file and --vocab_file or --spm_model_file"),
    (OLD + " --init_checkpoint old --albert_config_file google.json", "old/albert_model.ckpt does not fit "
     "the model: family is albert_zh, wanted google; layer_scopes is layer_shared, wanted "
     "transformer/group_0/inner_group_0; 18 missing: bert/encoder/embedding_hidden_mapping_in/bias, "
     "bert/encoder/embedding_hidden_mapping_in/kernel, "
     "bert/encoder/transformer/group_0/inner_group_0/LayerNorm/beta and 15 more; 4 of another shape: "
     "bert/embeddings/LayerNorm/beta is [16], wanted [8], bert/embeddings/LayerNorm/gamma is [16], wanted "
     "[8], bert/embeddings/position_embeddings is [16, 16], wanted [16, 8] and 1 more."
     + FAMILY), (OLD + " --init_checkpoint keras --albert_config_file config.json", "keras/model.ckpt: "
                 "neither an ALBERT nor a BERT checkpoint: no variable bert/...embeddings/word_embeddings"),
    (OLD + " --init_checkpoint lacking --albert_config_file config.json",
     "lacking/model.ckpt does not fit the model: 1 missing: bert/pooler/dense/bias." + FAMILY),
    (FINETUNE + " --data_dir pairs --init_checkpoint cut_off", "cut_off/model.ckpt-9: damaged: "
     "bert/embeddings/position_embeddings cannot be read: Read less bytes than requested"),
    # Folders of something else
    (RECORDS + " --output_dir trained --random_seed 7",
     "--output_dir: trained holds a different run: random_seed was 12345, is now 7" + OTHER_RUN),
    (PRETRAIN + " --input_file other_records --output_dir trained",
     "--output_dir: trained holds a different run: training data was of SHA-256 SHA, is now of SHA-256 SHA"
     + OTHER_RUN), (PRETRAIN + " --input_file built --do_eval false --output_dir trained",
                    "--output_dir: trained holds a model whose max_seq_length is 8, not 16" + ANOTHER),
    (RECORDS + " --output_dir old", "--output_dir: old has a checkpoint, but no model.json that describes "
     "it: give another folder, and this one as --init_checkpoint"),
    (RECORDS + " --output_dir no_step", "--output_dir: no_step/model.ckpt-3: not a training run's, since it "
     "has no global_step: give it as --init_checkpoint, and another folder"),
    (RECORDS + " --output_dir records",
     "--output_dir: records holds samples of etl.build_pretrain: give another folder"),
    (RECORDS + " --do_train false", "--output_dir: new has no checkpoint: train first"),
    (PAIRS + " --output_dir tuned --task_name lcqmc",
     "--output_dir: tuned holds a model whose task is sentence_pair, not lcqmc" + ANOTHER),
    (PAIRS + " --do_eval", "--output_dir: new: no model here, and without --do_train --init_checkpoint is "
     "not read: give --do_train, since pretrained is pretrained and has no classifier"),
    # Serving
    ("serving.export --output_dir new --checkpoint_dir nowhere",
     "nowhere: no such folder: run python -m estimator.finetune first"),
    ("serving.export --output_dir new --checkpoint_dir trained", "trained/model.json: task: wanted that of "
     "a fine-tuned model, got none: run python -m estimator.finetune first"),
    ("serving.export --output_dir export --checkpoint_dir tuned --version 7",
     "--version: export/7 exists; give another number"),
    ("serving.predict --model_dir nowhere --text_a 天", "--model_dir: nowhere: " + NO_EXPORT),
    ("serving.predict --server http://127.0.0.1:1 --text_a 天",
     "--server: http://127.0.0.1:1/v1/models/albert:classify: Connection refused"),]

WRONG_USAGE = [
    (BUILD + " --max_seq_lenght 128",
     "unrecognized arguments: --max_seq_lenght 128, did you mean --max_seq_length?"),
    (PRETRAIN + " --batch_size 8",
     "unrecognized arguments: --batch_size 8, did you mean --eval_batch_size or --train_batch_size?"),
    (FINETUNE + " --do-train", "unrecognized arguments: --do-train, did you mean --do_train?"),
    ("etl.build_pretrain corpus.txt", "unrecognized arguments: corpus.txt"),
    (BUILD + " --max_seq_length many", "argument --max_seq_length: wants an integer, got 'many'"),
    (BUILD + " --max_seq_length 0", "max_seq_length must be at least 8, got 0"),
    (BUILD + " --masked_lm_prob 15", "masked_lm_prob must be in (0, 1), got 15.0"),
    (BUILD + " --masking whole",
     "argument --masking: invalid choice: 'whole' (choose from 'whole_word', 'ngram', 'token')"),
    (BUILD + " --input_file ''", "--input_file is empty"),
    (PRETRAIN + " --num_train_steps 1e5", "argument --num_train_steps: wants an integer, got '1e5'"),
    (PRETRAIN + " --learning_rate -1", "learning_rate must be above 0, got -1.0"),
    (PRETRAIN + " --do_train maybe", "argument --do_train: wants true or false, got 'maybe'"),
    (PRETRAIN + " --num_warmup_steps 50",
     "num_warmup_steps must be in [0, 2], since num_train_steps is 2; got 50"),
    (FINETUNE + " --task_name lcqmc",
     "data_dir must name the folder of lcqmc; only sentence_pair has sample data"),
    ("serving.predict --text_b 天", "text_b is given without text_a"),
    ("serving.predict --server 127.0.0.1:8501 --text_a 天",
     "server must be as http://127.0.0.1:8501, got 127.0.0.1:8501"),
    ("serving.server --rest_api_port 80000", "rest_api_port must be at most 65535, got 80000"),
    ("serving.server --model_name albert/1", "model_name must be a name without / and :, got 'albert/1'"),
    ("estimator.checkpoints x",
     "the first word must be one of inspect, average, to_transformers, from_transformers, adopt, got x"),]


@pytest.mark.parametrize("line, message", MISTAKES, ids=[message[:60] for _, message in MISTAKES])
def test_a_mistake_is_one_line_and_changes_nothing(here, capsys, line, message):
    assert (run(line), said(capsys, here)) == (1, "%s: error: %s\n" % (line.split()[0], message))


@pytest.mark.parametrize("line, message", WRONG_USAGE, ids=[message[:60] for _, message in WRONG_USAGE])
def test_wrong_usage_is_one_line_with_a_hint(here, capsys, line, message):
    assert (run(line), said(capsys, here)) == (2, "%s: error: %s (see --help)\n" % (line.split()[0], message))


@pytest.mark.parametrize("text, message", [
    ("天\t地\n".encode("gb18030"), "line 1: " + NOT_GB18030),
    ("天\t地\n".encode("utf-16"), "line 1: " + NOT_UTF16),
    ("天\t地\n人\t山\t1\n".encode("utf-8"),
     "line 2: wanted text_a, or text_a and text_b separated by a tab, got 3 fields"),
    ("天\t地\n\n".encode("utf-8"), "line 2: text_a is empty"),
])
def test_bad_questions(here, capsys, monkeypatch, text, message):
    monkeypatch.setattr("sys.stdin", io.TextIOWrapper(io.BytesIO(text)))
    assert run("serving.predict --model_dir export") == 1
    assert said(capsys, here) == "serving.predict: error: standard input: %s\n" % message


@pytest.mark.parametrize("folder, message", [
    ("nowhere", NO_EXPORT),
    ("export/7", "this is one version: name the folder that it lies in"),
    ("half_copied",
     "version 7: half_copied/7: not a complete model: half_copied/7/variables; No such file or directory"),
])
def test_nothing_to_serve(here, capsys, folder, message):
    assert run("serving.server --port 0 --rest_api_port 0 --model_base_path " + folder) == 1
    assert said(capsys, here) == "serving.server: error: --model_base_path: %s: %s\n" % (folder, message)


def test_a_port_in_use(here, capsys):
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen(1)
        port = taken.getsockname()[1]
        assert run("serving.server --model_base_path export --rest_api_port %d" % port) == 1
    assert said(capsys, here) == ("serving.server: error: --rest_api_port: 127.0.0.1:%d: Address already in "
                                  "use; give another, or 0 for any free one\n" % port)


@pytest.mark.parametrize("line, most_bytes, message, left", [
    ("etl.build_vocab --input_file corpus.txt --vocab_size 200 --output_file vocab.txt", 100,
     "File too large: vocab.txt", None),
    (BUILD + " --input_file corpus.txt", 2000, "File too large: FOLDER/new/.work/NAME/runs/000000-0000.run",
     {".work"}), (RECORDS, 5000, "a file in --output_dir is larger than its disk or `ulimit -f` allows",
                  {".lock", "albert_config.json", "model.json", "run_config.json", "vocab.txt"}),
    (PAIRS, 500, "File too large: new/encoded/NAME.npz", {".lock", "encoded"}),
    ("serving.export --checkpoint_dir tuned --version 8 --output_dir new", 5000, "--output_dir: new: "
     "new/.8TEMPORARY/variables/variables.data-00000-of-00001.TEMPORARY; File too large", set()),
    ("estimator.embed --checkpoint_dir pretrained --max_seq_length 8 --input_file vocab.txt --output_file "
     "new/vectors.npy",
     500, "File too large: new/vectors.npy", set()),
])
def test_no_room(here, capsys, line, most_bytes, message, left):
    """As on a full disk, for files of more than so many bytes: none is left in part, but for TensorFlow's
    event files, which anything that reads them takes as they are; and what stood there stays.
    """
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (most_bytes, before[1]))
    try:
        status = run(line)
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, before)
    found = {name for name in os.listdir("new") if "tfevents" not in name} if os.path.exists("new") else None
    shutil.rmtree("new", ignore_errors=True)
    shown = re.sub("[0-9a-f]{32}|(?<=work/)[0-9a-f]{16}", "NAME", said(capsys, here))
    assert (status, shown, found) == (1, "%s: error: %s\n" % (line.split()[0], message), left)


def test_standard_output_on_a_full_disk():
    with open("/dev/full", "wb") as full:
        for words in (["etl.build_pretrain", "--help"], ["estimator.finetune", "--list_tasks"]):
            done = subprocess.run([sys.executable, "-m"] + words, cwd=ROOT, stdout=full,
                                  stderr=subprocess.PIPE)
            assert (done.returncode, done.stderr.decode()) == (1, "%s: error: No space left on device\n"
                                                               % words[0])


def test_what_is_no_mistake(here, capsys):
    """A byte order mark; batches that do not divide the data; the name of a checkpoint's file; long samples,
    which are noted."""
    counters = []
    for name in ("corpus", "bom"):
        assert run(BUILD + " --max_seq_length 1024 --eval_fraction 0 --input_file %s.txt" % name) == 0
        with open("new/manifest.json", encoding="utf-8") as stream:
            found = json.load(stream)["counters"]
        counters.append((found["tokens"], found["unknown_tokens"]))
        shutil.rmtree("new")
    assert counters == [(88, 16), (88, 16)]
    assert capsys.readouterr().out.count("\nNote: --max_seq_length is 1024, but bundled configs have "
                                         "positions for 512 tokens: the model needs another "
                                         "max_position_embeddings\n") == 2
    with open("tuned/eval_results.json", encoding="utf-8") as stream:
        assert json.load(stream)["num_examples"] == 5  # in batches of 4; 20 were trained on in batches of 3
    assert run("estimator.checkpoints inspect --checkpoint pretrained/model.ckpt-9.index") == 0
    assert capsys.readouterr().out.startswith("pretrained/model.ckpt-9\n")


def test_another_python(tmp_path):
    """make looks for the right one and says where it did; pip goes by what setup.py tells it."""
    for name in ("cat", "cksum"):
        os.symlink(shutil.which(name), str(tmp_path / name))
    for name in ("python3", "python3.7"):      # a newer one, and a shim that runs nothing
        (tmp_path / name).write_text("#!/bin/bash\n[[ $0 == *3.7 ]] || echo 3.11\n")
        (tmp_path / name).chmod(0o755)
    (tmp_path / "requirements").mkdir()
    for name in ("Makefile", "constraints.txt", "setup.py", "requirements.txt",
                 "requirements/environment.sh", "requirements/aarch64.txt"):
        shutil.copy(os.path.join(ROOT, name), str(tmp_path / name))
    made = subprocess.run([shutil.which("make"), "venv"], cwd=str(tmp_path), stdout=subprocess.PIPE,
                          stderr=subprocess.PIPE, env=dict.fromkeys(["PATH", "PYENV_ROOT"], str(tmp_path)))
    assert made.returncode == 2 and not (tmp_path / ".venv").exists() and made.stdout == b""
    assert re.sub(r"(?m)^make: .* Error 1$", "make", made.stderr.decode()) == (
        "Python 3.7 is needed (TensorFlow 1.15 runs on nothing newer) and was not found on PATH, in pyenv, "
        "uv or conda.\n"
        "Get it by one of:  pyenv install 3.7.16   |   uv python install 3.7   |   conda create -n py37 "
        "python=3.7\nmake\n")
    subprocess.run([sys.executable, "setup.py", "--quiet", "egg_info", "--egg-base", str(tmp_path)], cwd=ROOT,
                   check=True)
    told = (tmp_path / "chinese_albert.egg-info" / "PKG-INFO").read_text(encoding="utf-8")
    assert re.findall("(?m)^Requires-Python: .*$", told) == ["Requires-Python: >=3.7,<3.8"]
