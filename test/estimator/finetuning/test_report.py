import numpy as np

from estimator.data.rows import Rows
from estimator.data.tasks import TASKS, Example
from estimator.finetuning import report
from estimator.finetuning.predictions import Part
from etl.reports.page import page


def part(labels):
    count = len(labels)
    return Part("dev", [Example("甲%d" % number, None if number else "乙", str(label))
                        for number, label in enumerate(labels)],
                Rows(np.ones(count, np.int32), np.zeros(count, np.int32), np.arange(count + 1),
                     np.arange(count, dtype=np.int32), np.array(labels)))


def test_classes_and_hardest_examples():
    html = page("", report.sections(TASKS["lcqmc"], part([1, 0, 1]),
                                    np.array([[.1, .9], [.6, .4], [.8, .2]])))
    assert '<table class="heat">' in html and "precision" in html
    assert html.index("甲2") < html.index("甲1") < html.index("甲0 ‖ 乙")
    assert '<td class="num">1.609</td>' in html                      # -log 0.2


def test_of_many_classes_the_confused_pairs():
    outputs = np.eye(119)[[5, 5, 7]]
    html = page("", report.sections(TASKS["iflytek"], part([6, 6, 7]), outputs))
    assert '<table class="heat">' not in html
    assert '<td class="text">6</td><td class="text">5</td><td class="num">2</td>' in html


def test_a_regression_has_no_classes():
    section, = report.sections(TASKS["sts-b"], part([1.0, 4.0]), np.array([[1.0], [2.5]]))
    assert section.title == "Hardest examples" and "2.25" in page("", [section])
