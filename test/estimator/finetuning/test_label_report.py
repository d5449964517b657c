import numpy as np

from estimator.data.tasks import Example
from estimator.finetuning.label_report import sections

EXAMPLES = [Example("天地", None, ("x",)), Example("人山", None, ("x", "y")), Example("水火", None, ())]
LABELS = np.array([[1, 0], [1, 1], [0, 0]], bool)
PROBABILITIES = np.array([[.2, .7], [.9, .4], [.1, .6]])


def test_the_page_shows_labels_errors_and_hardest_examples():
    labels, errors, hardest = sections(EXAMPLES, ("x", "y"), LABELS, PROBABILITIES, [0.5, 0.3])
    titles = [section.title for section in (labels, errors, hardest)]
    assert titles == ["Labels", "Errors", "Hardest examples"]
    shown = "".join(map(str, labels.body))
    assert "0.3" in shown and "Labels that were missed where another was invented" in shown
    missed, invented = map(str, errors.body)
    assert "天地" in missed and "人山" not in missed and "水火" not in missed
    assert invented.index("天地") < invented.index("水火") and "人山" not in invented
    assert str(hardest.body[1]).index("天地") < str(hardest.body[1]).index("人山")
