from serving.label_rows import labels_of


def test_labels_of_a_row():
    row = {"count": 2, "label": ["x", "y", ""], "score": [0.9, 0.6, 0.0]}
    assert labels_of(row) == {"x": 0.9, "y": 0.6}
    assert labels_of(dict(row, count=0)) == {}
