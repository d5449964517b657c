"""Windows, answers and choices in the graph against Python's, over random texts with all that is tricky."""

import numpy as np
import pytest
import tensorflow.compat.v1 as tf

from estimator.data.candidates import filled
from estimator.finetuning import span_decoding
from estimator.model import heads, modeling
from estimator.model.kinds import CHOICES, SPANS
from estimator.weights.model_folder import ModelFolder, Reading
from etl.text.pairs import pack_pair
from etl.text.tokenization import TokenizerConfig, load_tokenizer
from etl.text.windows import pack_windows, pieces_of
from exported import CONFIG, TOKENS
from serving.exporting import reading_graph
from serving.exporting.graph_tokenization import GraphTokenizer
from tricky_texts import require_same_windows
from tricky_texts import random_texts as texts

LENGTH, OVERLAP, QUESTION, ANSWER, THRESHOLD = 24, 5, 6, 7, 0.1


class Graphs:
    """Both signatures and the encoder with both heads, in one session."""

    def __init__(self, folder):
        path = folder / "vocab.txt"
        path.write_text("\n".join(TOKENS) + "\n", encoding="utf-8")
        config = TokenizerConfig(str(path))
        self.tokenizer = load_tokenizer(config)
        reader = ModelFolder(CONFIG, config, LENGTH, "reading", kind=SPANS,
                             reading=Reading(OVERLAP, QUESTION, ANSWER, THRESHOLD))
        self.session = tf.Session(graph=tf.Graph())
        with self.session.graph.as_default():
            twin = GraphTokenizer(self.tokenizer)
            self.question, self.passage = (tf.placeholder(tf.string, [None]) for _ in range(2))
            self.candidates = tf.placeholder(tf.string, [None, None])
            self.windows = twin.windows(self.question, self.passage, LENGTH, OVERLAP, QUESTION)
            self.read = reading_graph.read(reader, twin, self.question, self.passage)
            self.choose = reading_graph.choose(ModelFolder(CONFIG, config, LENGTH, "choices", kind=CHOICES),
                                               twin, self.question, self.passage, self.candidates)
            self.ids = [tf.placeholder(tf.int32, [None, None]) for _ in range(3)]
            encoded = modeling.build_encoder(CONFIG, *self.ids)
            self.spans, self.scores = heads.spans(CONFIG, encoded, self.ids[1])[2:], heads.choices(CONFIG,
                                                                                                   encoded).logits
            tf.set_random_seed(3)
            self.session.run(tf.global_variables_initializer())

    def run(self, outputs, question, passage, candidates=None):
        feed = {self.question: question, self.passage: passage}
        return self.session.run(outputs, feed if candidates is None else {
            **feed, self.candidates: candidates
        })

    def run_rows(self, outputs, rows):
        """Of rows that begin with input_ids and segment_ids."""
        ids, mask, segments = np.zeros((3, len(rows), max(len(row[0]) for row in rows)), np.int32)
        for number, row in enumerate(rows):
            length = len(row[0])
            ids[number, :length], mask[number, :length], segments[number, :length] = row[0], 1, row[1]
        return self.session.run(outputs, dict(zip(self.ids, (ids, mask, segments))))


@pytest.fixture(scope="module")
def graphs(tmp_path_factory):
    return Graphs(tmp_path_factory.mktemp("reading_graph"))


def windows_in_python(graphs, questions, passages):
    return [(number, window) for number, (question, passage) in enumerate(zip(questions, passages))
            for window in pack_windows(graphs.tokenizer, question, pieces_of(graphs.tokenizer, passage),
                                       LENGTH, OVERLAP, QUESTION)]


def test_windows_and_their_characters_are_those_of_python(graphs):
    questions, passages = texts(1, 60, 8), texts(2, 60, 60)
    found = graphs.run(graphs.windows, questions, passages)
    wanted = windows_in_python(graphs, questions, passages)
    require_same_windows(found, wanted, passages)


def test_answers_are_those_of_python(graphs):
    questions, passages = texts(3, 60, 8), texts(4, 60, 60)
    found = graphs.run(graphs.read, questions, passages)
    wanted = windows_in_python(graphs, questions, passages)
    logits = graphs.run_rows(graphs.spans, [window[:2] for _, window in wanted])
    best, nulls = [[] for _ in questions], [np.inf] * len(questions)
    for (number, window), start, end in zip(wanted, *logits):
        length = len(window.input_ids)
        best[number].append(
            span_decoding.best_of_window(start[:length], end[:length], window.spans, ANSWER, 3))
        nulls[number] = min(nulls[number], start[0] + end[0])
    answered = 0
    for number, passage in enumerate(passages):
        first = next(iter(span_decoding.best_of_windows(best[number], 3)), None)
        begin, end = first[:2] if span_decoding.has_answer(first, np.float32(nulls[number]),
                                                           THRESHOLD) else (0, 0)
        answered += end > 0
        assert (found["start"][number], found["end"][number]) == (begin, end), passage
        assert found["answer"][number].decode("utf-8") == passage[begin:end]
        assert found["null_score"][number] == pytest.approx(nulls[number], abs=1e-3)
    assert 10 < answered < 60


def test_choices_are_those_of_python_however_rows_are_filled_up(graphs):
    questions = [text + gap for text, gap in zip(texts(5, 9, 4), ["", "_", "___好", "_a_b", "好_"] * 2)]
    passages, given = texts(
        6, 9, 30), [[text + str(number) for number, text in enumerate(texts(seed, 1 + seed % 4, 4))]
                    for seed in range(9)]
    most = max(map(len, given))
    empty = np.array([row + [""] * (most - len(row)) for row in given], object)
    repeated = np.array([row + [row[0]] * (most + 2 - len(row)) for row in given], object)
    found, again = (graphs.run(graphs.choose, questions, passages, filled_up)
                    for filled_up in (empty, repeated))
    for name in found:
        assert (found[name] == again[name]).all(), name
    for number, row in enumerate(given):
        scores = graphs.run_rows(graphs.scores, [
            pack_pair(graphs.tokenizer, passages[number], filled(questions[number], text), LENGTH, True)
            for text in row])[:, 0]
        weights = np.exp(scores - scores.max())
        assert found["probabilities"][number, :len(row)] == pytest.approx(weights / weights.sum(), abs=1e-4)
        assert found["count"][number] == len(row) and not found["probabilities"][number, len(row):].any()
        assert found["answer"][number].decode("utf-8") == row[found["choice"][number]]


def test_nothing_and_much(graphs):
    assert {name: len(values) for name, values in graphs.run(graphs.read, [], []).items()} == dict.fromkeys(
        ("answer", "start", "end", "score", "null_score"), 0)
    found = graphs.run(graphs.read, ["好", "好"], ["北京 " * 500, ""])       # 70 windows and more, and none
    assert found["end"][0] > found["start"][0] and found["answer"][1] == b""
    with pytest.raises(tf.errors.InvalidArgumentError, match="at most 64 candidates"):
        graphs.run(graphs.choose, ["好"], [""], [["x"] * 65])
    with pytest.raises(tf.errors.InvalidArgumentError, match="same number of rows"):
        graphs.run(graphs.choose, ["好"], ["", ""], [["x", "y"]])
