"""One template for every report: a page of text, tables and charts in one HTML file that needs nothing else.

A report is sections of parts: what the functions here and in etl/reports/charts.py return, and plain strings
as paragraphs.

    curves = {"train": [(100, 7.31), (200, 6.9)], "eval": [(200, 6.95)]}
    html = page("Pretraining", [
        Section("Summary", ["Base model, Chinese Wikipedia.", facts([("steps", 200), ("eval loss", 6.95)])]),
        Section("Loss", [line_chart(curves, "step", "loss", reference=(6.62, "unigram baseline"))])])
    write("output/pretrain/report.html", html)

The same input gives the same bytes.
"""
import re
from numbers import Real
from typing import Any, NamedTuple, Optional, Sequence, Tuple

from etl.common.files import write_text
from etl.reports.axes import number_as_text, numbers_as_text
from etl.reports.charts import Html, caption_of, escaped


class Section(NamedTuple):
    """A heading and its content: `Html` parts as they are, each plain string as a paragraph."""
    title: str
    body: Sequence[str]


class Token(NamedTuple):
    """A token of a training sample. `seen` is what the model sees where it must predict `text`,
    elsewhere None."""
    text: str
    seen: Optional[str] = None
    starts_word: bool = True


def write(path: str, html: Html) -> None:
    """Writes a page atomically, making its folder."""
    write_text(path, html)


def page(title: str, sections: Sequence[Section], subtitle: str = "") -> Html:
    """The whole document. Figures and tables that have a caption are numbered."""
    head, parts = ["<h1>%s</h1>" % escaped(title)], []
    if subtitle:
        head.append('<p class="subtitle">%s</p>' % escaped(subtitle))
    if len(sections) > 2:
        links = ['<a href="#s%d">%s</a>' % (number, escaped(name)) for number,
                 (name, _) in enumerate(sections, 1)]
        head.append('<nav aria-label="Contents">%s</nav>' % "\n".join(links))
    for number, section in enumerate(sections, 1):
        body = [part if isinstance(part, Html) else "<p>%s</p>" % escaped(part) for part in section.body]
        parts.append('<section id="s%d">\n<h2>%s</h2>\n%s\n</section>'
                     % (number, escaped(section.title), "\n".join(body)))
    return Html(_PAGE % {"title": escaped(title), "style": _STYLE, "head": "\n".join(head),
                         "body": "\n".join(parts)})


def beside(*parts: Html) -> Html:
    """Puts charts or tables side by side where the screen is wide enough, else one below the other."""
    return Html('<div class="beside">\n%s\n</div>' % "\n".join(parts))


def facts(pairs: Sequence[Tuple[str, Any]]) -> Html:
    """Names and values (numbers, text or `Html`) as tiles: what to read first."""
    tiles = ["<div><dt>%s</dt><dd>%s</dd></div>" % (escaped(name), _cell(value)) for name, value in pairs]
    return Html('<dl class="facts">\n%s\n</dl>' % "\n".join(tiles))


def table(headers: Sequence[str], rows: Sequence[Sequence[Any]], caption: str = "") -> Html:
    """Rows of text, numbers or `Html` under headers; None is an empty cell.

    A column of numbers is right-aligned, all with the same decimals. Raises ValueError for a row of
    another length.
    """
    for row in rows:
        if len(row) != len(headers):
            raise ValueError("a row must have %d cells, one for each header, got %d"
                             % (len(headers), len(row)))
    columns = [[row[index] for row in rows] for index in range(len(headers))]
    kinds = ["num" if _is_numeric(column) else "text" for column in columns]
    texts = [numbers_as_text(column) if kind == "num" else [_cell(value) for value in column]
             for kind, column in zip(kinds, columns)]
    head = "".join('<th scope="col" class="%s">%s</th>' % (kind, escaped(name))
                   for kind, name in zip(kinds, headers))
    lines = ["<tr>%s</tr>\n" % "".join('<td class="%s">%s</td>' % pair for pair in zip(kinds, cells))
             for cells in zip(*texts)]
    return Html('<figure class="table">%s<div class="scroll"><table>\n<thead><tr>%s</tr></thead>\n<tbody>\n'
                '%s</tbody>\n' '</table></div></figure>' % (caption_of(caption), head, "".join(lines)))


def samples(items: Sequence[Tuple[str, Sequence[Token]]], caption: str = "") -> Html:
    """Training samples, each with a heading, as running text: words separated by spaces, what is to
    predict marked."""
    legend = ((Token("字", "[MASK]"), "masked"), (Token("字", "子"), "replaced"), (Token("字", "字"), "kept"))
    keys = "".join("<span>%s %s</span>" % (_token(token), name) for token, name in legend)
    texts = []
    for title, tokens in items:
        words = "".join((" " if token.starts_word else "") + _token(token) for token in tokens)
        texts.append('<h3>%s</h3>\n<p class="sample" lang="zh-Hans">%s</p>\n'
                     % (escaped(title), words.strip()))
    return Html('<figure><p class="legend"><span class="axis">To predict</span>%s</p>\n%s%s</figure>'
                % (keys, "".join(texts), caption_of(caption)))


def _is_numeric(column: Sequence[Any]) -> bool:
    values = [value for value in column if value is not None]
    return bool(values) and all(map(_is_number, values))


def _is_number(value: Any) -> bool:
    return isinstance(value, Real) and not isinstance(value, bool)


def _cell(value: Any) -> str:
    if value is None or isinstance(value, Html):
        return value or ""
    return number_as_text(value) if _is_number(value) else escaped(value)


def _token(token: Token) -> str:
    text = escaped(token.text)
    if token.seen is None:
        return '<span class="special">%s</span>' % text if re.match(r"\[\w+\]$", token.text) else text
    if token.seen == "[MASK]":
        return '<mark class="masked">%s</mark>' % text
    if token.seen == token.text:
        return '<mark class="kept">%s</mark>' % text
    return '<mark class="random"><ruby>%s<rt>%s</rt></ruby></mark>' % (text, escaped(token.seen))


_PAGE = """<!DOCTYPE html>
<html lang="en">
<head>
<meta charset="utf-8">
<meta name="viewport" content="width=device-width, initial-scale=1">
<meta name="color-scheme" content="light dark">
<title>%(title)s</title>
<style>
%(style)s</style>
</head>
<body>
<main>
<header>
%(head)s
</header>
%(body)s
</main>
</body>
</html>
"""

_STYLE = """\
:root {
  --paper: #fdfdfb; --ink: #1f2328; --muted: #5d646d; --rule: #deded8; --tile: #f5f5f0;
  --bin: #4594c4; --heat: 13, 86, 148;
  --c0: #0072b2; --c1: #d55e00; --c2: #008f68; --c3: #b5528f; --c4: #9a6b00; --c5: #50565e;
  --serif: "Source Serif 4", Charter, "Bitstream Charter", Cambria, Georgia, "Noto Serif",
    "Songti SC", "Noto Serif CJK SC", "Source Han Serif SC", SimSun, serif;
  --sans: "Helvetica Neue", "Segoe UI", Roboto, "Noto Sans", Arial,
    "PingFang SC", "Microsoft YaHei", "Noto Sans CJK SC", "Source Han Sans SC", "WenQuanYi Micro Hei", sans-serif;
}
@media screen and (prefers-color-scheme: dark) { :root {
  --paper: #16181b; --ink: #e3e3de; --muted: #9da3ab; --rule: #363a40; --tile: #1e2125;
  --bin: #4a8fbd; --heat: 104, 178, 232;
  --c0: #58b4ee; --c1: #f0803c; --c2: #3cc39b; --c3: #de93c0; --c4: #e2b13c; --c5: #b0b5bd;
} }
* { box-sizing: border-box; }
body { margin: 0; background: var(--paper); color: var(--ink); font: 1rem/1.6 var(--serif); print-color-adjust: exact;
  -webkit-print-color-adjust: exact; -webkit-text-size-adjust: 100%; counter-reset: figure table; }
main { max-width: 62rem; margin: 0 auto; padding: 3.5rem 1.5rem 4rem; }
h1 { font-size: 2rem; line-height: 1.25; font-weight: 600; margin: 0; overflow-wrap: anywhere; }
h2 { font-size: 1.3rem; line-height: 1.3; font-weight: 600; margin: 0 0 1rem; }
h3 { font: 0.8rem/1.4 var(--sans); color: var(--muted); margin: 1rem 0 0.1rem; }
p { max-width: 44rem; margin: 0 0 1rem; overflow-wrap: anywhere; }
.subtitle { color: var(--muted); margin: 0.4rem 0 0; }
nav { font: 0.85rem/1.9 var(--sans); margin-top: 1rem; }
nav a { color: var(--c0); text-decoration: none; margin-right: 1.4em; }
nav a:hover { text-decoration: underline; }
section { border-top: 1px solid var(--rule); margin-top: 2.2rem; padding-top: 1.5rem; }
figure { margin: 0 0 2rem; min-width: 0; }
figure:last-child { margin-bottom: 0; }
.beside { display: grid; grid-template-columns: repeat(auto-fit, minmax(min(100%, 24rem), 1fr)); gap: 2rem 2.5rem;
  margin-bottom: 2rem; }
.beside > figure { margin: 0; }
figcaption { font-size: 0.9rem; line-height: 1.5; color: var(--muted); max-width: 44rem; margin-top: 0.6rem; }
figcaption::before { counter-increment: figure; content: "Figure " counter(figure) ".  "; font-weight: 600;
  color: var(--ink); }
.table > figcaption { margin: 0 0 0.5rem; }
.table > figcaption::before { counter-increment: table; content: "Table " counter(table) ".  "; }
.facts { display: grid; grid-template-columns: repeat(auto-fill, minmax(9rem, 1fr)); gap: 0.75rem; margin: 0 0 2rem;
  font-family: var(--sans); }
.facts div { background: var(--tile); padding: 0.7rem 0.9rem 0.75rem; border-radius: 4px;
  display: flex; flex-direction: column; justify-content: space-between; }
.facts dt { font-size: 0.78rem; line-height: 1.4; color: var(--muted); }
.facts dd { margin: 0.1rem 0 0; font-size: 1.25rem; line-height: 1.35; font-variant-numeric: tabular-nums;
  overflow-wrap: anywhere; }
.scroll { overflow-x: auto; }
table { border-collapse: collapse; font: 0.85rem/1.45 var(--sans); font-variant-numeric: tabular-nums; }
.table table { border-top: 1.5px solid var(--ink); border-bottom: 1.5px solid var(--ink); min-width: 50%; }
.table th { font-weight: 600; border-bottom: 1px solid var(--ink); vertical-align: bottom; }
.table th, .table td { padding: 0.35rem 1.1rem 0.35rem 0; text-align: left; }
.table td { vertical-align: top; }
.table tr > :last-child { padding-right: 0.2rem; }
.table tbody tr + tr td { border-top: 1px solid var(--rule); }
.table .num, .num { text-align: right; white-space: nowrap; }
.legend, .along, .note { max-width: none; margin: 0; font: 0.8rem/1.5 var(--sans); color: var(--muted); }
.legend { display: flex; flex-wrap: wrap; align-items: baseline; gap: 0 1.3em; margin-bottom: 0.8rem; }
.legend .axis { color: var(--ink); font-weight: 600; }
.key b { font-weight: 400; color: var(--ink); font-variant-numeric: tabular-nums; }
.key::before { content: ""; display: inline-block; width: 1.1em; height: 0.28em; border-radius: 2px;
  vertical-align: 0.22em; margin-right: 0.5em; background: var(--c); }
.along { text-align: center; margin: 1.7rem 1.2rem 0 3.6rem; }
.note { margin-top: 0.3rem; }
.c0 { --c: var(--c0); } .c1 { --c: var(--c1); } .c2 { --c: var(--c2); }
.c3 { --c: var(--c3); } .c4 { --c: var(--c4); } .c5 { --c: var(--c5); }
.plot { display: block; width: calc(100% - 4.8rem); height: 15rem; margin: 0 1.2rem 0 3.6rem; overflow: visible;
  font: 0.75rem var(--sans); font-variant-numeric: tabular-nums; }
.plot > svg { overflow: visible; }
.plot text { fill: var(--muted); }
.plot .y { text-anchor: end; transform: translate(-0.6rem, 0.35em); }
.plot .x { text-anchor: middle; transform: translate(0, 1.5em); }
.plot .none { text-anchor: middle; font-size: 0.85rem; }
.plot .grid { stroke: var(--rule); }
.plot .floor { stroke: var(--muted); pointer-events: none; }
.plot path { fill: none; stroke: var(--c); stroke-width: 1.6px; stroke-linejoin: round; stroke-linecap: round;
  vector-effect: non-scaling-stroke; }
.plot .dense { stroke-width: 1.1px; stroke-opacity: 0.8; }
.plot circle { fill: var(--c); stroke: var(--paper); stroke-width: 1px; }
.plot line.reference { stroke: var(--ink); stroke-dasharray: 5 4; }
.plot text.reference { fill: var(--ink); text-anchor: end; transform: translate(0, -0.5em);
  paint-order: stroke; stroke: var(--paper); stroke-width: 4px; stroke-linejoin: round; }
.plot .bin { fill: var(--bin); }
.plot .strip { fill: transparent; }
.tip line { stroke: var(--muted); visibility: hidden; }
.tip:hover line { visibility: visible; }
.tip:hover .bin { fill: var(--c1); }
.bars { width: 100%; }
.bars td, .bars th { padding: 0.16rem 0; }
.bars th { font-weight: 400; text-align: right; padding-right: 0.8rem; max-width: 32vw; white-space: nowrap;
  overflow: hidden; text-overflow: ellipsis; }
.bars tr:first-child:not(:last-child) > td { padding-top: 0.45rem; }
.bars tr:last-child:not(:first-child) > td { padding-bottom: 0.45rem; }
.bars .bar { width: 100%; }
.bars svg { display: block; width: 100%; height: 0.85rem; }
.bars rect { fill: var(--c); fill-opacity: 0.8; }
.bars line { stroke: var(--ink); stroke-width: 1.3px; }
.bars .num { padding-left: 0.8rem; }
.bars .spread { padding-left: 0.7rem; color: var(--muted); white-space: nowrap; }
.heat th { font-weight: 400; text-align: right; padding: 0.3rem 0.7rem 0.3rem 0; }
.heat thead th { vertical-align: bottom; padding: 0 0 0.4rem; text-align: center; }
.heat .axis { color: var(--muted); text-align: right; vertical-align: bottom; padding: 0 0.7rem 0.4rem 0; }
.heat .num { background: rgba(var(--heat), calc(0.04 + 0.86 * var(--share))); border: 2px solid var(--paper);
  padding: 0.4rem 0.6rem; min-width: 3.4rem; }
.heat .deep { color: var(--paper); }
.sample { font-size: 1.05rem; line-height: 2.2; max-width: none; margin-top: 0.4rem; word-spacing: 0.15em; }
mark { color: inherit; background: none; }
.masked { background: var(--ink); color: var(--paper); padding: 0.1em 0.05em; }
.kept { border-bottom: 2px solid var(--c2); }
.random { border-bottom: 2px solid var(--c1); }
rt { color: var(--c1); font: 600 0.68em/1 var(--sans); }
.special { font: 0.68em var(--sans); color: var(--muted); }
@page { margin: 16mm 15mm; }
@media print {
  :root { --paper: #fff; font-size: 10pt; }
  main { max-width: none; padding: 0; }
  nav { display: none; }
  h2, h3, .table > figcaption { break-after: avoid; }
  figure, .facts div, .table tr { break-inside: avoid; }
  figure.table { break-inside: auto; }
  .beside { grid-template-columns: 1fr 1fr; }
}
"""
