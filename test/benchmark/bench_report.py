"""Results of benchmarks → a page with bars and a Markdown table; the same results give the same bytes."""
import statistics
from typing import Dict, List, Mapping, NamedTuple, Optional, Sequence

from etl.reports.charts import bar_chart
from etl.reports.page import Section, facts, page, table
from results import OURS, Result

HEADERS = ("benchmark", "what", "alternative", "unit", "median", "lowest", "highest", "rounds",
           "ours is better by")
NOTE = ("Medians of the rounds, whiskers from the lowest to the highest. The alternatives ran in turn within "
        "one command. A unit with a slash is a rate, of which more is better; of all others less is. "
        "CPU-seconds are of all threads: other work on the machine disturbs them less than the wall clock's. "
        "Ratios are of medians; above 1 ours is ahead.")


class Outcome(NamedTuple):
    """How a benchmark ended."""
    name: str
    seconds: float
    failed: bool


class Row(NamedTuple):
    """One alternative of one result, as the tables show it."""
    benchmark: str
    what: str
    alternative: str
    unit: str
    median: float
    lowest: float
    highest: float
    rounds: int
    ratio: Optional[float]                     # how many times ours is better; None for ours


def rows_of(results: Sequence[Result]) -> List[Row]:
    return [Row(result.benchmark, result.what, name, result.unit, statistics.median(values), min(values),
                max(values), len(values), ratio_to(result, name))
            for result in results for name, values in result.rounds.items()]


def ratio_to(result: Result, other: str) -> Optional[float]:
    """How many times ours is better than `other`, by the medians; None where there is no such comparison."""
    if other == OURS or OURS not in result.rounds:
        return None
    ours, theirs = (statistics.median(result.rounds[name]) for name in (OURS, other))
    better, worse = (ours, theirs) if "/" in result.unit else (theirs, ours)
    return better / worse if worse else None


def make_page(results: Sequence[Result], outcomes: Sequence[Outcome], about: str) -> str:
    """The report: how all went, then for each benchmark bars by unit and a table."""
    sections = [
        Section("Summary", [facts([(outcome.name, "failed" if outcome.failed else "%.0f s" % outcome.seconds)
                                   for outcome in outcomes]), NOTE])]
    for benchmark, found in _grouped(results, lambda result: result.benchmark).items():
        charts = [bar_chart([result.what for result in group], _bars(group), unit)
                  for (unit, _), group in _grouped(
                      found, lambda result: (result.unit, tuple(result.rounds))).items()]
        rows = [row[1:-1] + ("" if row.ratio is None else "%.2f ×" % row.ratio,) for row in rows_of(found)]
        sections.append(Section(benchmark, charts + [table(HEADERS[1:], rows)]))
    return page("Benchmarks", sections, subtitle=about)


def make_table(results: Sequence[Result], outcomes: Sequence[Outcome], about: str) -> str:
    """The same in Markdown."""
    lines = [about, "", "| " + " | ".join(HEADERS) + " |", "|" + "---|" * len(HEADERS)]
    for row in rows_of(results):
        cells = [row.benchmark, row.what, row.alternative, row.unit, *("%.4g" % value for value in row[4:7]),
                 str(row.rounds), "" if row.ratio is None else "%.2f ×" % row.ratio]
        lines.append("| " + " | ".join(cell.replace("|", "\\|") for cell in cells) + " |")
    failed = [outcome.name for outcome in outcomes if outcome.failed]
    lines += ["", NOTE] + (["", "Failed: " + ", ".join(failed)] if failed else [])
    return "\n".join(lines) + "\n"


def _bars(group: Sequence[Result]) -> Dict[str, list]:
    """(lowest, median, highest) of each result, by alternative."""
    return {name: [(min(result.rounds[name]), statistics.median(result.rounds[name]),
                    max(result.rounds[name])) for result in group] for name in group[0].rounds}


def _grouped(results: Sequence[Result], key) -> Mapping:
    """Results by key, in the order in which the keys come."""
    groups: Dict = {}
    for result in results:
        groups.setdefault(key(result), []).append(result)
    return groups
