import re
from html.parser import HTMLParser
from xml.etree import ElementTree

import pytest

from etl.reports.charts import COLOURS, Html, bar_chart, confusion_matrix, histogram, line_chart
from etl.reports.page import Section, Token, beside, facts, page, samples, table, write


class Outline(HTMLParser):
    """Text by tag; checks that tags are closed in order."""

    def __init__(self, document):
        super().__init__()
        self.open, self.texts, self.links = [], {}, []
        self.feed(document)
        assert self.open == []

    def handle_starttag(self, tag, attributes):
        if tag != "meta":
            self.open.append(tag)
        self.links += [value for name, value in attributes if name in ("href", "src")]

    def handle_startendtag(self, tag, attributes):
        pass

    def handle_endtag(self, tag):
        assert self.open.pop() == tag

    def handle_data(self, data):
        if self.open:
            self.texts.setdefault(self.open[-1], []).append(data)


def everything():
    return page("报告 <1>", [
        Section("Summary", ["A & B.", facts([("steps", 100)])]),
        Section("Curves", [beside(line_chart({"train": [(0, 1.0), (1, 2.0)]}, "step", "loss"),
                                  histogram({1: 2}, "x", "y"))]),
        Section("Rest",
                [bar_chart(["的"], {"n": [1]}, "count"), confusion_matrix(["a"], [[1]]), table(["h"], [[1]]),
                 samples([("record 0", [Token("北", "[MASK]"), Token("京", "广"), Token("很", "很")])])]),
    ], "seed <2>")


def rows(markup):
    return [["".join(cell.itertext()) for cell in row] for row in ElementTree.fromstring(markup).iter("tr")]


def test_page_is_a_whole_document():
    outline = Outline(everything())
    assert outline.texts["title"][0] == outline.texts["h1"][0] == "报告 <1>"
    assert outline.texts["h2"] == ["Summary", "Curves", "Rest"]
    assert "seed <2>" in outline.texts["p"] and "A & B." in outline.texts["p"]
    assert outline.links == ["#s1", "#s2", "#s3"]


def test_page_needs_nothing_from_outside():
    document = everything()
    assert not re.search(r"https?:|//|@import|url\(|<script|<link|<img", document)
    assert document.startswith("<!DOCTYPE html>") and '<meta charset="utf-8">' in document


def test_short_page_has_no_list_of_contents():
    assert Outline(page("T", [Section("A", []), Section("B", [])])).links == []


def test_page_without_sections():
    assert Outline(page("T", [])).texts["h1"] == ["T"]


def test_style_sheet_knows_every_colour_in_light_and_dark():
    document = page("T", [])
    for number in range(COLOURS):
        assert len(re.findall(r"--c%d: #" % number, document)) == 2
        assert ".c%d {" % number in document


def test_only_html_stands_as_it_is():
    document = page("T", [Section("S", [Html("<em>a</em>"), "<em>b</em>", Html("<em>") + "c</em>"])])
    assert ("<em>a</em>" in document and "<p>&lt;em&gt;b&lt;/em&gt;</p>" in document
            and "&lt;em&gt;c" in document)


def test_facts():
    markup = facts([("步数", 51200000), ("loss", 2.15341), ("device", "<1 × 昇腾>"),
                    ("none", None), ("b", Html("<b>x</b>"))])
    values = ["".join(value.itertext()) for value in ElementTree.fromstring(markup).iter("dd")]
    assert values == ["51,200,000", "2.153", "<1 × 昇腾>", "", "x"]


def test_table_sets_numbers_to_the_right():
    markup = table(["text", "loss", "flag"], [
        ["<手机>", 9.21, True], ["基金", 7.0312, False], [Html("<b>x</b>"), None, None]], "Hardest & worst.")
    assert rows(markup) == [
        ["text", "loss", "flag"], ["<手机>", "9.210", "True"], ["基金", "7.031", "False"], ["x", "", ""]]
    cells = list(ElementTree.fromstring(markup).iter("td"))
    assert [cell.get("class") for cell in cells[:3]] == ["text", "num", "text"]
    assert ElementTree.fromstring(markup).find("figcaption").text == "Hardest & worst."


def test_table_without_rows():
    assert rows(table(["a", "b"], [])) == [["a", "b"]]


def test_table_with_a_short_row():
    with pytest.raises(ValueError, match="a row must have 2 cells, one for each header, got 1"):
        table(["a", "b"], [[1]])


def test_samples_mark_what_is_predicted():
    tokens = [Token("[CLS]"), Token("北", "[MASK]"), Token("京", "广", starts_word=False), Token("很", "很"),
              Token("<大>")]
    markup = samples([("record <0>", tokens)], "Samples.")
    text = ElementTree.fromstring(markup).find("p[@class='sample']")
    assert "".join(text.itertext()) == "[CLS] 北京广 很 <大>"
    assert [(mark.get("class"), "".join(mark.itertext())) for mark in text.iter("mark")] == [
        ("masked", "北"), ("random", "京广"), ("kept", "很")]
    assert [rt.text for rt in text.iter("rt")] == ["广"]
    assert [span.text for span in text.iter("span")] == ["[CLS]"]
    assert ElementTree.fromstring(markup).find("h3").text == "record <0>"


def test_same_input_gives_the_same_bytes():
    assert everything() == everything()


def test_write_is_utf_8(tmp_path):
    path = tmp_path / "new" / "report.html"
    write(str(path), page("报告 \ud800", []))
    assert "<h1>报告 \ufffd</h1>" in path.read_text(encoding="utf-8")
