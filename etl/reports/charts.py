"""Charts as HTML with inline SVG: curves, histograms, bars, confusion matrices.

Positions inside a chart are percentages, so it fits any width while text and strokes keep their size. Its
style sheet is the page's (etl/reports/page.py). The same input gives the same bytes.
"""
import html
import math
import re
from typing import Any, Dict, List, Mapping, Optional, Sequence, Tuple, Union

from etl.reports.axes import HUGE, TINY, Axis, axis_over, number_as_text, numbers_as_text

Point = Tuple[float, float]
Bar = Union[None, float, Tuple[float, float, float]]

COLOURS = 6            # of the style sheet: .c0 to .c5
MAX_POINTS = 1000      # of a curve; a screen cannot show more
MAX_DOTTED = 40        # points of a curve up to which each is marked
MAX_BINS = 65          # 64 bars of 8 for lengths below 512, and one for those that are full
MAX_TIPS = 100         # positions of a chart with a tooltip

_NO_TEXT = re.compile("[\x00-\x08\x0b\x0c\x0e-\x1f\x7f\ud800-\udfff\ufffe\uffff]")


class Html(str):
    """Text that is already markup: every other string is escaped."""


def line_chart(series: Mapping[str, Sequence[Point]], x_label: str, y_label: str, log_y: bool = False,
               reference: Optional[Tuple[float, str]] = None, caption: str = "") -> Html:
    """Curves, one for each name, through (x, y) points in the order given.

    NaN, infinities and, with `log_y`, values that have no logarithm are gaps, counted below the chart.

    Args:
      series: at most six curves of any length; long ones are thinned.
      reference: a value of y and its name, drawn as a horizontal line.
    """
    _check_number_of(series)
    points = {name: [(x, y) if _has_place(x, y, log_y) else (x, math.nan) for x, y in given]
              for name, given in series.items()}
    drawn = {name: [point for point in given if not math.isnan(point[1])] for name, given in points.items()}
    xs = [x for given in drawn.values() for x, _ in given]
    ys = [y for given in drawn.values() for _, y in given]
    if xs and 0 < min(xs) < 0.05 * max(xs):
        xs.append(0)                           # steps start at 0, their log a little later
    x_axis = axis_over(xs, tight=True, whole=all(float(x).is_integer() for x in xs))
    y_axis = axis_over(ys + [reference[0]] if reference else ys, log=log_y)
    marks = [_curve(thin(given), x_axis, y_axis, number) for number, given in enumerate(points.values())]
    if reference:
        marks.append(_reference(reference[1], 1 - y_axis.place(reference[0])))
    marks.append(_tips(drawn, x_label, x_axis))
    last = [(name, number_as_text(given[-1][1]) if given else "") for name, given in drawn.items()]
    plot = _plot(x_axis, y_axis, "".join(marks) if xs else "",
                 "%s by %s; last: %s" % (y_label, x_label, ", ".join(map(" ".join, last))))
    lost = [(len(points[name]) - len(given), name)
            for name, given in drawn.items() if len(given) < len(points[name])]
    reasons = "NaN, infinite or not positive" if log_y else "NaN or infinite"
    note = "Not drawn: %s (%s)" % (", ".join("%d of %s" % pair for pair in lost), reasons) if lost else ""
    return _figure(y_label, last, plot, x_label, note, caption)


def histogram(counts: Mapping[int, float], x_label: str, y_label: str, caption: str = "") -> Html:
    """Bars over the integers from the lowest key to the highest; neighbours share a bar if there are many.

    A bar covers a power of two of integers, since those divide sequence lengths.
    """
    width = 1
    while counts and max(counts) // width - min(counts) // width >= MAX_BINS:
        width *= 2
    bins: Dict[int, float] = {}
    for value, count in counts.items():
        bins[value // width] = bins.get(value // width, 0) + count
    starts = {number: number * width - 0.5 for number in bins}
    x_axis = axis_over([edge for start in starts.values() for edge in (start, start + width)], tight=True,
                       whole=True)
    y_axis = axis_over([0, *bins.values()], whole=True)
    marks = []
    for number in sorted(bins):
        left, right = x_axis.place(starts[number]), x_axis.place(starts[number] + width)
        height = y_axis.place(bins[number])
        strip = 'x="%s" width="%s"' % (_percent(left), _percent(right - left))
        bar = 'x="%s" width="%s"' % (_percent(left + 0.05 * (right - left)), _percent(0.9 * (right - left)))
        values = "%d–%d" % (number * width, number * width + width - 1) if width > 1 else str(number)
        tip = escaped("%s %s: %s" % (x_label, values, number_as_text(bins[number])))
        marks.append(
            '<g class="tip"><rect class="strip" %s height="100%%"/><rect class="bin" %s y="%s" height="%s"/>'
            '<title>%s</title></g>' % (strip, bar, _percent(1 - height), _percent(height), tip))
    plot = _plot(x_axis, y_axis, "".join(marks), "%s by %s" % (y_label, x_label))
    return _figure(y_label, [], plot, x_label, "", caption)


def bar_chart(labels: Sequence[str], series: Mapping[str, Sequence[Bar]], value_label: str,
              caption: str = "") -> Html:
    """Horizontal bars from zero with their values as numbers; under each label, one bar per series.

    Args:
      series: at most six names, each with a bar for each label: a value >= 0, or (low, value, high) such as
        quartiles around a median, or None where there is nothing.

    Raises ValueError for a series of another length and for a negative value.
    """
    _check_number_of(series)
    for name, bars in series.items():
        if len(bars) != len(labels):
            raise ValueError("series %r must have %d bars, one for each label, got %d"
                             % (name, len(labels), len(bars)))
    triples = [[_triple(bar) for bar in bars] for bars in series.values()]
    every = [triple for row in triples for triple in row if triple]
    top = max((value for triple in every for value in triple if math.isfinite(value)), default=0) or 1
    middles = [triple and triple[1] for index in range(len(labels))
               for triple in (row[index] for row in triples)]
    texts = iter(numbers_as_text(middles))
    groups = []
    for index, label in enumerate(labels):
        head = '<th scope="rowgroup" rowspan="%d" title="%s">%s</th>' % (len(series), escaped(label),
                                                                         escaped(label))
        rows = [_bar(row[index], top, number, next(texts)) for number, row in enumerate(triples)]
        groups.append("<tbody><tr>%s%s</tr></tbody>\n" % (head, "</tr>\n<tr>".join(rows)))
    keys = [(name, "") for name in series]
    plot = '<table class="bars">%s</table>' % "".join(groups)
    return _figure(value_label, keys, plot, "", "" if labels else "no values", caption)


def confusion_matrix(labels: Sequence[str], counts: Sequence[Sequence[int]], caption: str = "") -> Html:
    """Counts by true label (row) and predicted label (column), shaded by their share of the row."""
    head = "".join('<th scope="col">%s</th>' % escaped(label) for label in labels)
    rows = []
    for label, row in zip(labels, counts):
        cells = "".join(_shaded(count, count / (sum(row) or 1), label) for count in row)
        rows.append('<tr><th scope="row">%s</th>%s</tr>\n' % (escaped(label), cells))
    return Html('<figure><div class="scroll"><table class="heat">\n'
                '<thead><tr><td class="axis">true ↓ predicted →</td>%s</tr></thead>\n<tbody>\n%s</tbody>\n'
                '</table></div>%s</figure>' % (head, "".join(rows), caption_of(caption)))


def thin(points: Sequence[Point], limit: int = MAX_POINTS) -> List[Point]:
    """At most about `limit` of the points: of each section the lowest, the highest and, if it has gaps (NaN),
    one gap."""
    if len(points) <= limit:
        return list(points)
    size = math.ceil(3 * len(points) / limit)
    kept = {0, len(points) - 1}
    for start in range(0, len(points), size):
        stretch = range(start, min(start + size, len(points)))
        values = [index for index in stretch if not math.isnan(points[index][1])]
        if values:
            kept |= {min(values, key=lambda index: points[index][1]),
                     max(values, key=lambda index: points[index][1])}
        if len(values) < len(stretch):
            kept.add(next(index for index in stretch if math.isnan(points[index][1])))
    return [points[index] for index in sorted(kept)]


def escaped(value: Any) -> str:
    """Text as markup; control characters and half surrogate pairs, invalid in HTML, become U+FFFD."""
    return html.escape(_NO_TEXT.sub("\ufffd", str(value)))


def caption_of(text: str) -> str:
    """A figure's caption, which the style sheet numbers, or nothing."""
    return "<figcaption>%s</figcaption>" % escaped(text) if text else ""


def _check_number_of(series: Mapping[str, Any]) -> None:
    if len(series) > COLOURS:
        raise ValueError("a chart must have at most %d series, got %d" % (COLOURS, len(series)))


def _has_place(x: float, y: float, log: bool) -> bool:
    return abs(x) < HUGE and abs(y) < HUGE and (y > TINY or not log)      # False for NaN, too


def _percent(share: float) -> str:
    return "%.2f%%" % (100 * share)


def _figure(heading: str, keys: Sequence[Tuple[str, str]], plot: str, along: str, note: str,
            caption: str) -> Html:
    """Axis title and, for several series, the legend; the plot, the x axis title, a note, the caption."""
    legend = "".join('<span class="key c%d">%s <b>%s</b></span>' % (number, escaped(name), value)
                     for number, (name, value) in enumerate(keys if len(keys) > 1 else ()))
    parts = ['<p class="legend"><span class="axis">%s</span>%s</p>\n' % (escaped(heading), legend), plot]
    below = (("along", along), ("note", note))
    parts += ['<p class="%s">%s</p>' % (kind, escaped(text)) for kind, text in below if text]
    return Html("<figure>%s%s</figure>" % ("".join(parts), caption_of(caption)))


def _plot(x_axis: Axis, y_axis: Axis, marks: str, description: str) -> str:
    """Grid, tick labels (outside of the SVG's box, in its margins) and marks."""
    grid = []
    if marks:
        for label, place in zip(y_axis.labels, [_percent(1 - y_axis.place(mark)) for mark in y_axis.ticks]):
            grid.append('<line class="grid" x2="100%%" y1="%s" y2="%s"/><text class="y" y="%s">%s</text>'
                        % (place, place, place, label))
        for label, place in zip(x_axis.labels, [_percent(x_axis.place(mark)) for mark in x_axis.ticks]):
            grid.append('<text class="x" x="%s" y="100%%">%s</text>' % (place, label))
    marks = marks or '<text class="none" x="50%" y="50%">no values</text>'
    floor = '<line class="floor" x2="100%" y1="100%" y2="100%"/>'
    return ('<svg class="plot" role="img" aria-label="%s">%s\n%s%s</svg>\n'
            % (escaped(description), "".join(grid), marks, floor))


def _curve(points: Sequence[Point], x_axis: Axis, y_axis: Axis, number: int) -> str:
    """A path with gaps; dots if there are few points, and for a single point between gaps."""
    runs: List[List[Point]] = [[]]
    for x, y in points:
        if math.isnan(y):
            runs.append([])
        else:
            runs[-1].append((x_axis.place(x), 1 - y_axis.place(y)))
    path = "".join("M" + "L".join("%.1f %.1f" % (1000 * x, 1000 * y) for x, y in run)
                   for run in runs if len(run) > 1)
    dotted = len(points) <= MAX_DOTTED
    dots = "".join('<circle class="c%d" cx="%s" cy="%s" r="3"/>' % (number, _percent(x), _percent(y))
                   for run in runs for x, y in run if dotted or len(run) == 1)
    return ('<svg width="100%%" height="100%%" viewBox="0 0 1000 1000" preserveAspectRatio="none">'
            '<path class="c%d%s" d="%s"/></svg>%s\n' % (number, "" if dotted else " dense", path, dots))


def _reference(name: str, height: float) -> str:
    return ('<line class="reference" x2="100%%" y1="%s" y2="%s"/><text class="reference" x="100%%" '
            'y="%s">%s</text>\n' % (_percent(height), _percent(height), _percent(height), escaped(name)))


def _tips(series: Mapping[str, Sequence[Point]], x_label: str, x_axis: Axis) -> str:
    """Strips that tile the plot; the one under the pointer shows a hairline and each series' last value
    there."""
    found: Dict[int, Dict[str, Point]] = {}
    for name, points in series.items():
        for x, y in points:
            found.setdefault(int(x_axis.place(x) * (MAX_TIPS - 1)), {})[name] = (x, y)
    tips = [found[place] for place in sorted(found)]
    centres = [x_axis.place(max(x for x, _ in tip.values())) for tip in tips]
    edges = [0.0] + [(left + right) / 2 for left, right in zip(centres, centres[1:])] + [1.0]
    strips = []
    for tip, centre, left, right in zip(tips, centres, edges, edges[1:]):
        text = "\n".join("%s %s at %s %s" % (name, number_as_text(y), x_label, number_as_text(x))
                         for name, (x, y) in tip.items())
        strips.append('<g class="tip"><rect class="strip" x="%s" width="%s" height="100%%"/>'
                      '<line x1="%s" x2="%s" y2="100%%"/><title>%s</title></g>\n'
                      % (_percent(left), _percent(right - left), _percent(centre), _percent(centre),
                         escaped(text)))
    return "".join(strips)


def _triple(bar: Bar) -> Optional[Tuple[float, float, float]]:
    if bar is None:
        return None
    triple = bar if isinstance(bar, tuple) else (bar, bar, bar)
    if min(triple) < 0:
        raise ValueError("a bar must be >= 0, got %r" % (bar,))
    return triple


def _bar(triple: Optional[Tuple[float, float, float]], top: float, number: int, text: str) -> str:
    """Three cells: the bar with its whisker, the value, the spread."""
    marks, spread = "", ""
    if triple and all(map(math.isfinite, triple)):
        low, value, high = triple
        marks = '<rect width="%s" height="100%%"/>' % _percent(value / top)
        if low < high:
            spread = "–".join(numbers_as_text([low, high]))
            left, right = _percent(low / top), _percent(high / top)
            marks += "".join('<line x1="%s" x2="%s" y1="%d%%" y2="%d%%"/>' % ends for ends in (
                (left, right, 50, 50), (left, left, 20, 80), (right, right, 20, 80)))
    return ('<td class="bar"><svg class="c%d" aria-hidden="true">%s</svg></td>'
            '<td class="num">%s</td><td class="spread">%s</td>' % (number, marks, text, spread))


def _shaded(count: int, share: float, label: str) -> str:
    tip = escaped("%.1f%% of %s" % (100 * share, label))
    return ('<td class="num%s" style="--share:%.3f" title="%s">%s</td>'
            % (" deep" if share > 0.7 else "", share, tip, number_as_text(count)))
