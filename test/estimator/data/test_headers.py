import pytest

from estimator.data import headers
from estimator.data.headers import ID, LABEL, OTHER, TEXT, Column

PAIR = ("text_a", "text_b", "label")
SINGLE = ("label", "text_a")


@pytest.mark.parametrize("role, names", [
    (Column(TEXT), "texts comments news_title 新闻标题 原句 "
     "text sentence Query 句子 文本 内容 用户问题 query_text TITLE “文本” review_body"),
    (Column(TEXT, 1), "text_a sentence1 Sentence-1 textA texta q1 question_1 s1 句子1 句子一 问句Ａ "
     "text.left 文本１ 问句1 左句 上句"),
    (Column(TEXT, 2), "text_b sentence2 sent2 textB q2 hypothesis 句子二 问题2 第二句 response "
     "target_text 答 右句"),
    (Column(LABEL), "label labels 标签 类别 gold_label is_duplicate score 是否相似 #label label_id "
     "情感标签 target 意图"),
    (Column(ID), "id idx qid 编号 sentence_id qid1 index 序号"),
    (Column(OTHER), "label_desc keywords date 关键词"),
    (None, "1 2019 天 怎么办 手机没信号怎么办 苹果 iPhone same a 有问题吗 好评 text=1 一 号 物流 x1"),
])
def test_what_a_name_says(role, names):
    for name in names.split():
        assert headers.read_name(name) == role, name


@pytest.mark.parametrize("fields, order, names", [
    (["sentence1", "sentence2"], PAIR, ["text_a", "text_b"]),
    (["句子", "标签"], SINGLE, ["text_a", "label"]),
    (["label", "q2", "q1"], PAIR, ["label", "text_b", "text_a"]),
    (["hypothesis", "premise", "label"], PAIR, ["text_b", "text_a", "label"]),
    (["标题", "内容"], PAIR, ["text_a", "text_b"]),
    (["idx", "query", "title", "is_similar"], PAIR, ["id", "text_a", "text_b", "label"]),
    (["sentence0", "sentence1", "score", "split"], PAIR, ["text_a", "text_b", "label", "split"]),
    (["review", "stars", "shop"], SINGLE, ["text_a", "label", "shop"]),
    (["text", "label", "label_desc"], SINGLE, ["text_a", "label", "label_desc"]),
    (["句子"], SINGLE, ["text_a"]),
])
def test_the_columns_of_a_header(fields, order, names):
    assert headers.match(fields, order, may_lack="label") == names


@pytest.mark.parametrize("fields, order", [
    (["天", "地", "1"], PAIR), (["问题", "答案", "1"], PAIR), (["1", "text"], SINGLE),
    (["内容", "物流"], SINGLE), (["iPhone", "query"], PAIR), (["手机没信号怎么办"], SINGLE),
    (["gj04", "1", "", "He left."], PAIR)])
def test_lines_that_are_examples(fields, order):
    assert headers.match(fields, order, may_lack="label") is None


@pytest.mark.parametrize("fields", [["title", "content", "label"], ["label", "category"],
                                    ["text", "class", "star"]])
def test_a_header_that_leaves_the_columns_open(fields):
    with pytest.raises(ValueError, match="that does not say which columns are label, text_a: "):
        headers.match(fields, SINGLE)


QUESTIONS = [["怎么退货呢", "退货流程是什么"], ["几点开门", "营业到几点"], ["可以刷卡吗", "能用银行卡付款吗"]]
SHOPS = [["这家店的面不错"], ["等了一个小时才上菜"], ["面很好吃，汤也好，还会再来"]]


@pytest.mark.parametrize("rows, wanted", [
    ([["left_one", "right"], ["天", "地"], ["日", "月a"]], True), ([["QQ"], ["天"], ["日"]], True),
    ([["QQ", "qq"], ["天", "iPhone"], ["日", "月"]], False),
    ([["天", "x"], ["日", "月"], ["山", "水"]], False),
    ([["left", "right"], ["天", "地"]], False),
    # in Chinese: shorter than what stands below
    ([["用户说", "客服说"]] + QUESTIONS, True), ([["案情", "判词"]] + QUESTIONS, True),
    ([["案情"]] + SHOPS, True), ([["案情"]] + SHOPS + [["案情"]] * 2, True), ([["描述"]] + SHOPS, True),
    ([["编码", "案情"], ["1", "等了一个小时才上菜"], ["2", "这家店的面不错"]], True),
    ([["案情", "类"], ["等了一个小时才上菜", "0"], ["这家店的面不错", ""]], True),
    # a text
    (QUESTIONS, False), (SHOPS, False), ([["不错"]] + SHOPS, False), ([], False),
    ([["怎么退", "退货"]] + QUESTIONS, False),
    ([["面条"], ["汤"], ["牛肉"]], False), ([["这家店的面"]] + SHOPS, False), ([["案情"]] + SHOPS[:1], False),
    ([["2019", "0"]] + QUESTIONS, False), ([["案情", "退货流程是什么"]] + QUESTIONS, False)])
def test_a_first_line_of_another_kind(rows, wanted):
    assert headers.looks_like_one(rows, ["0", "1", ""]) == wanted


@pytest.mark.parametrize("fields, wanted", [
    (["句子1", "句子2"], True), (["sentence1", "sentence2", "label"], True), (["text"], True),
    (["标签"], False), (["问题", "手机"], False), (["问题", "答案", "1"], False)])
def test_a_header_inside(fields, wanted):
    assert headers.stands_inside(fields) == wanted


def test_headers_above_numbered_columns():
    assert headers.is_header(["id", "q1", "q2", "same"]) and headers.is_header(["句子1", "句子2", "标签"])
    assert not headers.is_header(["天", "地", "1"]) and not headers.is_header(["text", "1"])
