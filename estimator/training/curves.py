"""Event files → a training report with curves: `training_report.html` beside the checkpoints."""
import glob
import os
from typing import Any, Dict, List, Mapping, NamedTuple, Optional, Sequence, Tuple

import tensorflow.compat.v1 as tf

from estimator.training import resume
from etl.common import files
from etl.reports.charts import Html, line_chart
from etl.reports.page import Section, beside, facts, page, table, write

FILE = "training_report.html"

Curves = Dict[str, List[Tuple[int, float]]]    # (step, value) by name, steps ascending


class Chart(NamedTuple):
    """Curves of one kind."""
    title: str
    names: Tuple[str, ...]                     # of curves; missing ones are left out
    y_label: str
    reference: Optional[str] = None            # an evaluation metric to draw as a line
    log_y: bool = False


def pace_charts(unit: str) -> Tuple[Chart, ...]:
    """The last charts of every training; `unit`, in the plural, is what its batches consist of."""
    return (Chart("Learning rate", ("learning_rate",), "rate"),
            Chart("Global norm of the gradient before clipping", ("gradient_norm",), "norm", log_y=True),
            Chart(unit.capitalize() + " per second", ("examples_per_second",), unit + "/s"))


def write_report(output_dir: str, title: str, charts: Sequence[Chart], sections: Sequence[Section] = (),
                 evaluated: str = "newest") -> str:
    """Writes the page from files in `output_dir`: event files, run_config.json and eval_results.json. Returns
    its path.

    Args:
      output_dir: the training run's folder.
      title: of the page.
      charts: drawn if their curves exist.
      sections: further sections, below the curves.
      evaluated: the checkpoint to which the results belong.
    """
    train, held_out = read_curves(output_dir), read_curves(os.path.join(output_dir, "eval"))
    results = _read_if_there(os.path.join(output_dir, "eval_results.json"))
    run = _read_if_there(os.path.join(output_dir, resume.RUN_FILE))
    figures = [_figure(chart, train, held_out, results) for chart in charts]
    sections = [Section("Evaluation of the %s checkpoint" % evaluated, [facts(
                    [(name.replace("_", " "), value) for name, value in sorted(results.items())])] if results
                        else ["None yet."]),
                Section("Curves", [beside(*[figure for figure in figures if figure])]), *sections,
                Section("How it was made", [run.get("command", ""), table(["what", "value"], sorted(
                    list(run.get("facts", {}).items()) + list(run.get("versions", {}).items())))])]
    path = os.path.join(output_dir, FILE)
    write(path, page(title, sections, subtitle=output_dir))
    return path


def read_curves(folder: str) -> Curves:
    """The points of all event files in `folder`; if a step was run twice, after a crash, the later one
    counts."""
    found: Dict[str, Dict[int, float]] = {}
    for path in sorted(glob.glob(os.path.join(glob.escape(folder), "events.out.tfevents.*")),
                       key=os.path.getmtime):
        try:
            for event in tf.train.summary_iterator(path):
                for value in event.summary.value:
                    if value.HasField("simple_value"):
                        found.setdefault(value.tag, {})[event.step] = value.simple_value
        except tf.errors.DataLossError:        # a killed run leaves its last event truncated
            continue
    return {name: sorted(points.items()) for name, points in found.items()}


def _figure(chart: Chart, train: Curves, held_out: Curves, results: Mapping[str, Any]) -> Optional[Html]:
    several = len(chart.names) > 1
    series = {}
    for name in chart.names:
        for where, curves in (("training", train), ("held out", held_out)):
            if name in curves:
                series["%s, %s" % (name, where) if several else where] = curves[name]
    if not series:
        return None
    reference = None
    if chart.reference in results:
        reference = float(results[chart.reference]), chart.reference.replace("_", " ")
    return line_chart(series, "step", chart.y_label, log_y=chart.log_y, reference=reference,
                      caption=chart.title)


def _read_if_there(path: str) -> Mapping[str, Any]:
    return files.read_json(path) if os.path.exists(path) else {}
