import math
import re
from xml.etree import ElementTree

import pytest
from hypothesis import given
from hypothesis import strategies as st

from etl.reports.charts import (COLOURS, MAX_POINTS, Html, bar_chart, confusion_matrix, escaped, histogram,
                                line_chart, thin)

NAN, INF = math.nan, math.inf


def marks(chart, tag, kind=None):
    """Elements of one tag, and of one class if given, in order."""
    return [element for element in ElementTree.fromstring(chart).iter(tag)
            if kind is None or kind in element.get("class", "").split()]


def texts(chart, tag, kind=None):
    return ["".join(element.itertext()) for element in marks(chart, tag, kind)]


def curves(chart):
    """The runs of each curve's path: lists of "x y", in thousandths of the plot from its top left."""
    return [[run.split("L") for run in path.get("d").split("M")[1:]] for path in marks(chart, "path")]


def test_line_chart_draws_each_series_in_its_colour():
    chart = line_chart({"train": [(0, 1.0), (10, 3.0)], "eval": [(10, 2.0)]}, "step", "loss", caption="Loss.")
    assert isinstance(chart, Html)
    assert curves(chart) == [[["0.0 1000.0", "1000.0 0.0"]], []]
    assert [(dot.get("class"), dot.get("cx"), dot.get("cy")) for dot in marks(chart, "circle")] == [
        ("c0", "0.00%", "100.00%"), ("c0", "100.00%", "0.00%"), ("c1", "100.00%", "50.00%")]
    assert texts(chart, "text", "x") == ["0", "2", "4", "6", "8", "10"]
    assert texts(chart, "text", "y") == ["1.0", "1.5", "2.0", "2.5", "3.0"]
    assert texts(chart, "p") == ["losstrain 3eval 2", "step"]
    assert texts(chart, "figcaption") == ["Loss."]
    assert marks(chart, "svg", "plot")[0].get("aria-label") == "loss by step; last: train 3, eval 2"


def test_line_chart_answers_the_pointer_with_the_values():
    chart = line_chart({"train": [(0, 1.5), (1000, 3.0)], "eval": [(1000, 2.0)]}, "step", "loss")
    assert texts(chart, "title") == ["train 1.5 at step 0", "train 3 at step 1,000\neval 2 at step 1,000"]
    strips = [(strip.get("x"), strip.get("width")) for strip in marks(chart, "rect")]
    assert strips == [("0.00%", "50.00%"), ("50.00%", "50.00%")]


def test_line_chart_begins_at_step_0_where_the_first_is_near():
    assert texts(line_chart({"a": [(2, 1.0), (100, 2.0)]}, "step", "loss"), "text", "x")[0] == "0"
    assert texts(line_chart({"a": [(60, 1.0), (100, 2.0)]}, "step", "loss"), "text", "x")[0] == "60"


def test_gaps_are_left_and_counted():
    values = [1.0, 2.0, NAN, 3.0, INF, 2.0, 1.0, -INF]
    chart = line_chart({"train": list(enumerate(values)), "eval": [(0, 1.0), (7, 1.0)]}, "step", "loss")
    assert [[len(run) for run in curve] for curve in curves(chart)] == [[2, 2], [2]]
    assert len(marks(chart, "circle")) == 7
    assert texts(chart, "p", "note") == ["Not drawn: 3 of train (NaN or infinite)"]


def test_points_alone_between_gaps_are_dots_on_long_curves_too():
    values = [1.0] * 50 + [NAN, 2.0, NAN] + [1.0] * 50
    chart = line_chart({"train": list(enumerate(values))}, "step", "loss")
    assert [[len(run) for run in curve] for curve in curves(chart)] == [[50, 50]]
    assert [dot.get("cy") for dot in marks(chart, "circle")] == ["0.00%"]


def test_log_scale_leaves_out_what_has_no_logarithm():
    chart = line_chart({"norm": [(0, 1.0), (1, 10.0), (2, 0.0), (3, -1.0), (4, 100.0)]}, "step", "norm",
                       log_y=True)
    assert curves(chart) == [[["0.0 1000.0", "250.0 500.0"]]]
    assert texts(chart, "p", "note") == ["Not drawn: 2 of norm (NaN, infinite or not positive)"]
    assert [label for label in texts(chart, "text", "y") if label in ("1", "10", "100")] == ["1", "10", "100"]


def test_reference_line_has_its_name_and_a_place_on_the_scale():
    chart = line_chart({"train": [(0, 2.0), (1, 4.0)]}, "step", "loss", reference=(8.0, "一元 <6.6>"))
    assert [line.get("y1") for line in marks(chart, "line", "reference")] == ["0.00%"]
    assert texts(chart, "text", "reference") == ["一元 <6.6>"]
    assert texts(chart, "text", "y")[-1] == "8"


@pytest.mark.parametrize("series", [{}, {"train": []}, {"train": [(1, NAN)]}])
def test_line_chart_of_nothing_says_so(series):
    chart = line_chart(series, "step", "loss", reference=(6.6, "baseline"))
    assert texts(chart, "text") == ["no values"]


def test_line_chart_of_one_point():
    chart = line_chart({"train": [(100, 1e-4)]}, "step", "rate", log_y=True)
    assert [(dot.get("cx"), dot.get("r")) for dot in marks(chart, "circle")] == [("50.00%", "3")]


def test_too_many_series():
    series = {str(number): [] for number in range(COLOURS + 1)}
    with pytest.raises(ValueError, match="a chart must have at most 6 series, got 7"):
        line_chart(series, "step", "loss")


def test_same_input_gives_the_same_bytes():
    series = {"train": [(x, math.sin(x)) for x in range(5000)]}
    assert line_chart(series, "step", "loss") == line_chart(dict(series), "step", "loss")


@given(st.lists(st.one_of(st.floats(), st.just(NAN)), max_size=60), st.booleans())
def test_any_curve_gives_well_formed_markup_inside_the_plot(values, log_y):
    chart = line_chart({"train": list(enumerate(values))}, "step", "loss", log_y=log_y)
    for place in re.findall(r'\bc[xy]="([-\d.a-z]+)%"', chart):
        assert -0.01 <= float(place) <= 100.01
    ElementTree.fromstring(chart)


def test_thin_keeps_short_series():
    points = [(x, 1.0) for x in range(MAX_POINTS)]
    assert thin(points) == points


def test_thin_keeps_ends_extremes_and_gaps():
    points = [(x, math.sin(x / 7000)) for x in range(100000)]
    points[31415], points[27182], points[50000] = (31415, 9.0), (27182, -9.0), (50000, NAN)
    kept = thin(points)
    assert len(kept) <= MAX_POINTS + 2
    assert {points[0], points[-1], points[31415], points[27182], points[50000]} <= set(kept)
    assert kept == sorted(kept)
    assert thin(points) == kept


@given(st.lists(st.one_of(st.floats(-9, 9), st.just(NAN)), max_size=300), st.integers(10, 50))
def test_thin_keeps_the_range(values, limit):
    kept = thin(list(enumerate(values)), limit)
    assert len(kept) <= limit + 2
    before, after = [value for value in values if value == value], [y for _, y in kept if y == y]
    assert (min(before, default=0), max(before, default=0)) == (min(after, default=0), max(after, default=0))


def test_histogram_has_a_bar_for_each_number():
    chart = histogram({1: 50, 2: 100, 4: 25}, "characters", "words")
    bars = marks(chart, "rect", "bin")
    assert [(bar.get("y"), bar.get("height")) for bar in bars] == [
        ("50.00%", "50.00%"), ("0.00%", "100.00%"), ("75.00%", "25.00%")]
    assert texts(chart, "title") == ["characters 1: 50", "characters 2: 100", "characters 4: 25"]
    assert texts(chart, "text", "x") == ["1", "2", "3", "4"]


def test_histogram_joins_many_numbers_by_powers_of_two():
    chart = histogram({length: 1 for length in range(1, 513)}, "tokens", "samples")
    titles = texts(chart, "title")
    assert len(titles) == 65
    assert (titles[0] == "tokens 0–7: 7" and titles[1] == "tokens 8–15: 8"
            and titles[-1] == "tokens 512–519: 1")


@pytest.mark.parametrize("counts, wanted",
                         [({}, ["no values"]), ({3: 0}, ["0", "1", "3"]), ({0: 1}, ["0", "1", "0"])])
def test_histogram_of_little(counts, wanted):
    assert texts(histogram(counts, "tokens", "samples"), "text") == wanted


def test_bar_chart_shows_words_and_counts():
    chart = bar_chart(["的", "<中国>"], {"count": [1200, 300]}, "occurrences")
    assert texts(chart, "th") == ["的", "<中国>"]
    assert [bar.get("width") for bar in marks(chart, "rect")] == ["100.00%", "25.00%"]
    assert texts(chart, "td", "num") == ["1,200", "300"]
    assert texts(chart, "p") == ["occurrences"]


def test_bar_chart_groups_series_with_their_spread():
    chart = bar_chart(["batch 1", "batch 8"],
                      {"ours": [(1.0, 2.0, 4.0), (5.0, 6.0, 8.0)], "theirs": [3.0, None]}, "ms")
    assert texts(chart, "p") == ["msours theirs "]
    assert [head.get("rowspan") for head in marks(chart, "th")] == ["2", "2"]
    assert texts(chart, "td", "num") == ["2", "3", "6", ""]
    assert texts(chart, "td", "spread") == ["1–4", "", "5–8", ""]
    assert [svg.get("class") for svg in marks(chart, "svg")] == ["c0", "c1", "c0", "c1"]
    whisker = marks(chart, "line")[0]
    assert (whisker.get("x1"), whisker.get("x2")) == ("12.50%", "50.00%")


@pytest.mark.parametrize("value, text", [(0, "0"), (NAN, "nan"), (INF, "inf")])
def test_bar_without_length(value, text):
    chart = bar_chart(["a"], {"x": [value]}, "ms")
    assert texts(chart, "td", "num") == [text]
    assert [bar.get("width") for bar in marks(chart, "rect")] in ([], ["0.00%"])


def test_bar_chart_of_nothing():
    chart = bar_chart([], {}, "ms")
    assert marks(chart, "tr") == [] and texts(chart, "p") == ["ms", "no values"]


@pytest.mark.parametrize("bars, message", [
    ([1.0], "series 'x' must have 2 bars, one for each label, got 1"),
    ([1.0, -2.0], "a bar must be >= 0, got -2.0"),
    ([1.0, (-1.0, 2.0, 3.0)], r"a bar must be >= 0, got \(-1.0, 2.0, 3.0\)"),
])
def test_bad_bars(bars, message):
    with pytest.raises(ValueError, match=message):
        bar_chart(["a", "b"], {"x": bars}, "ms")


def test_confusion_matrix_shades_by_share_of_the_row():
    chart = confusion_matrix(["财经", "<体育>"], [[3, 1], [0, 0]])
    assert texts(chart, "th") == ["财经", "<体育>", "财经", "<体育>"]
    cells = [cell for cell in marks(chart, "td") if cell.get("style")]
    assert [(cell.text, cell.get("style"), cell.get("class"), cell.get("title")) for cell in cells] == [
        ("3", "--share:0.750", "num deep", "75.0% of 财经"), ("1", "--share:0.250", "num", "25.0% of 财经"),
        ("0", "--share:0.000", "num", "0.0% of <体育>"), ("0", "--share:0.000", "num", "0.0% of <体育>")]


@pytest.mark.parametrize("text, markup", [
    ("<b> & \"c\"", "&lt;b&gt; &amp; &quot;c&quot;"), ("你好\n", "你好\n"),
    ("a\x00b\ud800c", "a\ufffdb\ufffdc"), (7, "7")])
def test_escaped(text, markup):
    assert escaped(text) == markup


def test_every_name_is_escaped():
    evil = "<script>&\"'"
    charts = [line_chart({evil: [(0, 1.0), (1, NAN)], "b": []}, evil, evil, reference=(1.0, evil),
                         caption=evil),
              histogram({1: 1}, evil, evil, evil), bar_chart([evil], {evil: [1.0], "b": [1.0]}, evil, evil),
              confusion_matrix([evil], [[1]], evil)]
    for chart in charts:
        assert "<script" not in chart
        assert evil in "".join(ElementTree.fromstring(chart).itertext())
