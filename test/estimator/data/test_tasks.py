import json

import pytest

from estimator.data import tasks
from estimator.data.tasks import TASKS, Example
from estimator.finetuning import scores
from etl.common.command_line import UserError


def write(folder, name, content):
    (folder / name).write_bytes(content if isinstance(content, bytes) else content.encode("utf-8"))


EARLIER = {name: task for (name, _), task in tasks.EARLIER.items()}


def read(task, folder, part="train"):
    return tasks.read_examples(EARLIER.get(task, TASKS[task]), str(folder), part)


def json_line(**fields):
    return json.dumps(fields, ensure_ascii=False) + "\n"


def columns(header, **values):
    """A header and one line that has `values` in their columns and x in the others."""
    names = header.split(" ")
    return "\t".join(names) + "\n" + "\t".join(values.get(name, "x") for name in names) + "\n"


XNLI = columns("language gold_label sentence1_binary_parse sentence2_binary_parse sentence1_parse "
               "sentence2_parse sentence1 sentence2 promptID pairID", language="zh", gold_label="neutral",
               sentence1="天", sentence2="地")
MNLI = columns("index promptID pairID genre sentence1_binary_parse sentence2_binary_parse sentence1_parse "
               "sentence2_parse sentence1 sentence2 label1 gold_label", index="7", sentence1="a",
               sentence2="b", gold_label="entailment")
WSC = json_line(target={"span1_text": "小明", "span1_index": 0, "span2_text": "他", "span2_index": 3},
                label="true", text="小明说他累了")

# task, part, file as its distributor ships it, examples
SHIPPED = [
    ("sentence_pair", "train", "train.csv", "text_a,text_b,label\n天,地,1\n", [Example("天", "地", "1")]),
    ("single_sentence", "dev", "dev.jsonl", json_line(text_a="天", label=1), [Example("天", None, "1")]),
    ("lcqmc", "train", "train.txt", "天\t地\t1\n日\t月\t0\n",
     [Example("天", "地", "1"), Example("日", "月", "0")]),
    ("lcqmc_pair", "dev", "dev.txt", "天\t地\t1\n", [Example("天", "地", "1")]),
    ("lcqmc", "train", "train.tsv", "text_a\ttext_b\tlabel\n天\t地\t1\n", [Example("天", "地", "1")]),
    ("bq", "dev", "dev.tsv", "天\t地\t1\n", [Example("天", "地", "1")]),
    ("bq", "dev", "dev.json", json_line(gid=3, sentence1="天", sentence2="地", label="1"),
     [Example("天", "地", "1")]),
    ("chnsenticorp", "train", "train.tsv", "label\ttext_a\n1\t风云\n", [Example("风云", None, "1")]),
    ("chnsenticorp", "dev", "dev.tsv", "qid\tlabel\ttext_a\n0\t1\t风云\n", [Example("风云", None, "1")]),
    ("xnli", "train", "multinli.train.zh.tsv", "premise\thypo\tlabel\n天 地\t山 水\tcontradictory\n",
     [Example("天地", "山水", "contradiction")]),
    ("xnli", "dev", "xnli.dev.tsv", XNLI + XNLI.split("\n")[1].replace("zh", "sw") + "\n",
     [Example("天", "地", "neutral")]),
    ("xnli", "test", "xnli.test.tsv", XNLI, [Example("天", "地", "neutral")]),
    ("xnli", "train", "train.json", json_line(premise="天 a", hypo="地", label="contradictory") +
     json_line(premise="日", hypo="月", label="neutral"),
     [Example("天 a", "地", "contradiction"), Example("日", "月", "neutral")]),
    ("afqmc", "train", "train.json", json_line(sentence1="天", sentence2="地", label="0"),
     [Example("天", "地", "0")]),
    ("afqmc", "test", "test.json", json_line(id=4, sentence1="天", sentence2="地"),
     [Example("天", "地", None, 4)]), ("afqmc", "dev", "dev.tsv", "天\t地\t1\n", [Example("天", "地", "1")]),
    ("tnews", "dev", "dev.json", json_line(label="102", label_desc="news_entertainment", sentence="天",
                                           keywords="地,人"), [Example("天", None, "102")]),
    ("iflytek", "dev", "dev.json", json_line(label="118", label_des="其他", sentence="天"),
     [Example("天", None, "118")]),
    ("cmnli", "train", "train.json", json_line(sentence1="天", sentence2="地", label="-") +
     json_line(sentence1="日", sentence2="月", label="neutral"), [Example("日", "月", "neutral")]),
    ("ocnli", "train", "train.50k.json",
     json_line(level="hard", sentence1="天", sentence2="地", label="entailment", id=3),
     [Example("天", "地", "entailment", 3)]),
    ("csl", "dev", "dev.json", json_line(id=1, abst="摘要", keyword=["天", "地"], label="0"),
     [Example("天 地", "摘要", "0", 1)]),
    ("wsc", "dev", "dev.json", WSC, [Example("_小明_说[他]累了", None, "true")]),
    ("copa", "train", "train.json",
     json_line(id=0, premise="下雨", choice0="湿", choice1="干", question="effect", label=0),
     [Example("下雨", "湿", "1", 0), Example("下雨", "干", "0", 0)]),
    ("copa", "test", "test.json",
     json_line(id=5, premise="湿", choice0="晴", choice1="下雨", question="cause"),
     [Example("晴", "湿", None, 5), Example("下雨", "湿", None, 5)]),
    ("cola", "train", "train.tsv", "gj04\t1\t\tHe left.\n", [Example("He left.", None, "1")]),
    ("cola", "test", "test.tsv", "index\tsentence\n0\tHe left.\n", [Example("He left.", None, None, "0")]),
    ("mnli", "dev", "dev_matched.tsv", MNLI, [Example("a", "b", "entailment", "7")]),
    ("mnli", "dev_mismatched", "dev_mismatched.tsv", MNLI, [Example("a", "b", "entailment", "7")]),
    ("mrpc", "train", "msr_paraphrase_train.txt", columns("Quality #1·ID #2·ID #1·String #2·String", **{
        "Quality": "1", "#1·String": 'a "b', "#2·String": "c"}).replace("·", " "),
     [Example('a "b', "c", "1")]),
    ("sts-b", "dev", "dev.tsv",
     columns("index genre filename year old_index source1 source2 sentence1 sentence2 score",
             index="3", sentence1="a", sentence2="b", score="4.25"),
     [Example("a", "b", "4.25", "3")]),
]


@pytest.mark.parametrize("task, part, name, content, wanted", SHIPPED)
def test_files_as_they_are_shipped(tmp_path, task, part, name, content, wanted):
    write(tmp_path, name, content)
    assert read(task, tmp_path, part) == wanted


def test_undecided_examples_are_counted(tmp_path, capsys):
    write(tmp_path, "dev.json", 2 * json_line(sentence1="天", sentence2="地", label="-") +
          json_line(sentence1="日", sentence2="月", label="neutral"))
    assert len(read("ocnli", tmp_path, "dev")) == 1
    assert capsys.readouterr().out.endswith("dev.json: 2 examples skipped: their label is -, undecided\n")
    (tmp_path / "dev.json").rename(tmp_path / "test.json")
    assert [example.label for example in read("ocnli", tmp_path, "test")] == [None, None, "neutral"]
    assert capsys.readouterr().out == ""


def test_what_stands_in_place_of_labels_in_test_parts(tmp_path):
    write(tmp_path, "test.tsv", "天\t地\t\n天\t地\t-1\n天\t地\t?\n天\t地\t1\n天\t地\tNULL\n")
    assert [example.label for example in read("lcqmc", tmp_path, "test")] == [None, None, None, "1", None]
    signed = tasks.with_columns(TASKS["sentence_pair"], {}, ("-1", "0", "1"))
    write(tmp_path, "test.tsv", "天\t地\t-1\n")
    assert tasks.read_examples(signed, str(tmp_path), "test")[0].label == "-1"
    write(tmp_path, "test.tsv", "sentence1\tsentence2\tscore\na\tb\t-1\na\tb\t\n")
    assert [example.label for example in read("sts-b", tmp_path, "test")] == ["-1", None]
    write(tmp_path, "test.json", json_line(premise="a", choice0="b", choice1="c", question="cause", label=-1))
    assert [example.label for example in read("copa", tmp_path, "test")] == [None, None]
    write(tmp_path, "dev.tsv", "天\t地\t\n")
    with pytest.raises(UserError, match="dev.tsv: line 1: unknown label ''; task lcqmc has 0, 1"):
        read("lcqmc", tmp_path, "dev")


@pytest.mark.parametrize("name, content", [
    ("test.tsv", "sentence1\tsentence2\n天\t地\n"), ("test.tsv", "id\t问句1\t问句2\n7\t天\t地\n"),
    ("test.csv", "q1,q2,is_duplicate\n天,地,\n")])
def test_a_header_in_one_part_alone(tmp_path, name, content):
    write(tmp_path, name, content)
    example, = read("lcqmc", tmp_path, "test")
    assert example[:3] == ("天", "地", None)


TRADE = "快递没到\t物流\n抬头写错\t发票\n\n杯子裂了\t售后\n查运单号\t物流\n票在哪下\t发票\n想换颜色\t售后\n"


def test_labels_and_the_order_of_columns_out_of_the_files(tmp_path, capsys):
    write(tmp_path, "train.tsv", TRADE)
    write(tmp_path, "dev.tsv", "sentence\tlabel\n包裹在哪\t物流\n专票资料\t发票\n")
    task = tasks.with_found_labels(TASKS["single_sentence"], str(tmp_path))
    assert task.labels == ("物流", "发票", "售后")
    assert tasks.read_examples(task, str(tmp_path), "train")[2] == Example("杯子裂了", None, "售后")
    assert tasks.read_examples(task, str(tmp_path), "dev")[1] == Example("专票资料", None, "发票")
    output = capsys.readouterr().out
    assert "train.tsv: labels found: 物流, 发票, 售后\n" in output and "1 blank line(s) skipped" in output
    assert "train.tsv: no header; the columns are text_a, label\n" in output
    write(tmp_path, "train.tsv", "1\t天\n0\t地\n2\t人\n1\t山\n0\t水\n2\t火\n")
    assert tasks.with_found_labels(TASKS["single_sentence"], str(tmp_path)).labels == ("0", "1")
    write(tmp_path, "train.tsv", "label\ttext\n12\t天\n3\t地\n12\t山\n3\t水\n")
    assert tasks.with_found_labels(TASKS["single_sentence"], str(tmp_path)).labels == ("3", "12")


def test_tabs_in_a_csv_with_ids(tmp_path):
    write(tmp_path, "train.csv", "1\t怎么退货\t退货流程\t1\n2\t几点开门\t退货，多久\t0\n")
    assert read("lcqmc", tmp_path)[1] == Example("几点开门", "退货，多久", "0", "2")
    write(tmp_path, "test.csv", "7\t怎么退货\t退货流程\n8\t几点开门\t退货多久\n")
    assert read("lcqmc", tmp_path, "test")[1] == Example("几点开门", "退货多久", None, "8")


def test_a_first_line_that_may_be_a_header_is_not_predicted(tmp_path):
    write(tmp_path, "test.tsv", "lhs\trhs\n天\t地\n日\t月\n")
    message = ("test.tsv: line 1: lhs, rhs: if this is a header, remove it or name the columns text_a, "
               "text_b; if these are texts, put such a header above them")
    with pytest.raises(UserError, match=message):
        read("lcqmc", tmp_path, "test")


def test_every_task_was_tried():
    classes = [task for task in TASKS.values() if task.kind == "classes"] + list(EARLIER.values())
    assert {task for task, *_ in SHIPPED} == {task.name for task in classes}
    assert all(task.metric in scores.metrics_of(len(task.labels), task.pairs_per_question)
               for task in classes)
    assert {task.name: len(task.labels) for task in TASKS.values() if len(task.labels) not in (0, 2, 3)} == {
        "tnews": 15, "iflytek": 119, "cluener": 10}


@pytest.mark.parametrize("spans, wanted", [
    (((0, "小明"), (2, "他")), "_小明_[他]累"), (((2, "他"), (0, "小明")), "[小明]_他_累")])
def test_marks_of_neighbours_do_not_cross(tmp_path, spans, wanted):
    target = {"span%d_%s" % (number, key): value for number, span in enumerate(spans, 1)
              for key, value in zip(("index", "text"), span)}
    write(tmp_path, "dev.json", json_line(text="小明他累", label="false", target=target))
    assert read("wsc", tmp_path, "dev") == [Example(wanted, None, "false")]


def test_labels_may_be_absent_in_test_alone(tmp_path):
    for part in ("test", "dev"):
        write(tmp_path, part + ".json", '{"id": 0, "sentence1": "天", "sentence2": "地"}\n')
        write(tmp_path, part + ".tsv", "天\t地\n")
    assert read("lcqmc", tmp_path, "test") == [Example("天", "地", None)]
    with pytest.raises(UserError, match="dev.json: line 1: no label; there are: id, sentence1, sentence2"):
        read("afqmc", tmp_path, "dev")
    with pytest.raises(UserError,
                       match=r"dev.tsv: line 1: wanted 3 field\(s\): text_a, text_b, label; got 2"):
        read("lcqmc", tmp_path, "dev")


@pytest.mark.parametrize("given, name, content", [
    (dict(text_a="q1", text_b="q2", label="same"), "train.csv", "id,q1,q2,same\n7,天,地,yes\n"),
    (dict(text_a="q1", text_b="q2", label="same"), "train.json", json_line(q1="天", q2="地", same="yes")),
    (dict(text_a="2", text_b="4", label="1"), "train.tsv", "yes\t天\tx\t地\n"),
])
def test_columns_and_labels_by_flag(tmp_path, given, name, content):
    write(tmp_path, name, content)
    task = tasks.with_columns(TASKS["sentence_pair"], given, ("no", "yes"))
    assert tasks.read_examples(task, str(tmp_path),
                               "train") == [Example("天", "地", "yes", "7" if "csv" in name else None)]
    assert tasks.with_columns(TASKS["sentence_pair"], {}, ()) == TASKS["sentence_pair"]


@pytest.mark.parametrize("task, name, line, message", [
    ("lcqmc", "train.tsv", "天\t地\t2\n", "unknown label '2'; task lcqmc has 0, 1"),
    ("lcqmc", "train.tsv", "天\t \u3000\t1\n", "text_b is empty"),
    ("lcqmc", "train.tsv", "\t地\t1\n", "text_a is empty"),
    ("lcqmc", "train.tsv", b"\xcc\xec\t\xb5\xd8\t1\n", "not UTF-8: "),
    ("iflytek", "train.json", json_line(sentence="天", label=119),
     "unknown label '119'; task iflytek has 0, 1, .*19, …"),
    ("afqmc", "train.json", json_line(sentence1="天", label="1"),
     "no column sentence2; there are: sentence1, label"),
    ("afqmc", "train.json", json_line(sentence1=3, sentence2="地", label="1"),
     "wanted a text sentence1, got 3"), ("csl", "train.json", json_line(keyword="天", abst="x", label="1"),
                                         "wanted a list of texts as keyword, got '天'"),
    ("copa", "train.json", json_line(question="why", label=0),
     "wanted cause or effect as question, got 'why'"),
    ("copa", "train.json", json_line(question="cause", label=2), "unknown label '2'; it must be 0 or 1"),
    ("wsc", "train.json", json_line(text="天", target={"span1_text": "地", "span1_index": 0}),
     "target: span1 is '地' at 0, which the text does not have there"),
    ("wsc", "train.json", json_line(text="天"),
     "target: span1 is None at None, which the text does not have there"),
])
def test_a_bad_line_is_named(tmp_path, task, name, line, message):
    write(tmp_path, name, line)
    with pytest.raises(UserError, match=name + ": line 1: " + message):
        read(task, tmp_path)


def test_a_label_of_a_regression_is_a_number(tmp_path):
    for label in ("high", "nan"):
        write(tmp_path, "train.tsv", "sentence1\tsentence2\tscore\na\tb\t%s\n" % label)
        with pytest.raises(UserError, match="train.tsv: line 2: label must be a number, got '%s'" % label):
            read("sts-b", tmp_path)
    write(tmp_path, "train.tsv", "sentence1\tscore\na\t1\n")
    with pytest.raises(UserError,
                       match="train.tsv: line 2: no column sentence2; there are: sentence1, score"):
        read("sts-b", tmp_path)


def test_files_that_are_missing_or_empty(tmp_path):
    suffixes = ("json", "tsv", "csv", "jsonl", "txt")
    with pytest.raises(UserError, match="no such file: %s$"
                       % " or ".join(r"\S+/dev\." + suffix for suffix in suffixes)):
        read("afqmc", tmp_path, "dev")
    write(tmp_path, "dev.tsv", "text_a\ttext_b\tlabel\n")
    with pytest.raises(UserError, match="dev.tsv: holds no example"):
        read("lcqmc", tmp_path, "dev")


def test_every_task_is_listed():
    lines = tasks.describe_all().split("\n")
    assert [line.split()[0] for line in lines] == list(TASKS)
    assert ("15 labels" in lines[list(TASKS).index("tnews")]
            and "xnli.dev.tsv" in lines[list(TASKS).index("xnli")])
    assert lines[list(TASKS).index("lcqmc")].endswith(
        "train, dev, test with one of .tsv .csv .json .jsonl .txt")
    assert "cmrc2018_dev.json" in lines[list(TASKS).index("cmrc2018")]
