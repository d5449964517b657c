"""Entities in the graph against Python's, over random texts with all that is tricky."""

import numpy as np
import pytest
import tensorflow.compat.v1 as tf

import tricky_texts
from estimator.finetuning import tag_decoding
from estimator.model import heads, modeling
from estimator.model.kinds import TAGS
from estimator.weights.model_folder import ModelFolder, Tagging
from etl.text.tokenization import TokenizerConfig, load_tokenizer
from etl.text.windows import join_windows, pack_windows, pieces_of
from exported import CONFIG, TOKENS
from serving.entity_lists import entities_of, left_out
from serving.exporting import tagging_graph
from serving.exporting.graph_tokenization import GraphTokenizer
from serving.exporting.reference import padded
from serving.exporting.tagging_model import Reading
from serving.saved_model import rows_of
from serving.version_files import MAX_ENTITIES

LENGTH, OVERLAP, LABELS = 24, 5, ("人", "org", "x y")
CHARACTERS = [*tricky_texts.CHARACTERS, "1", "２０"]


class Graphs:
    """The signature with and without a CRF, and the head above the encoder, in one session."""

    def __init__(self, folder):
        path = folder / "vocab.txt"
        path.write_text("\n".join(TOKENS) + "\n", encoding="utf-8")
        config = TokenizerConfig(str(path))
        self.tokenizer = load_tokenizer(config)
        self.session = tf.Session(graph=tf.Graph())
        with self.session.graph.as_default():
            twin = GraphTokenizer(self.tokenizer)
            self.text = tf.placeholder(tf.string, [None])
            self.windows = twin.windows(None, self.text, LENGTH, OVERLAP, 0)
            self.tag = [
                tagging_graph.tag(
                    ModelFolder(
                        CONFIG, config, LENGTH, "tagging", LABELS, kind=TAGS, tagging=Tagging(OVERLAP, crf)
                    ),
                    twin,
                    self.text,
                )
                for crf in (False, True)
            ]
            self.ids = [tf.placeholder(tf.int32, [None, None]) for _ in range(3)]
            self.logits = heads.tags(CONFIG, modeling.build_encoder(CONFIG, *self.ids), len(LABELS)).logits
            transitions = heads.crf_transitions(len(LABELS))
            tf.set_random_seed(3)
            self.session.run(tf.global_variables_initializer())
            learned = np.random.RandomState(1).randn(7, 7).astype(np.float32)
            transitions.load(learned, self.session)
        self.moves = [tag_decoding.moves_of(len(LABELS)), tag_decoding.moves_of(len(LABELS), learned)]

    def rows(self, texts, crf):
        return rows_of(self.session.run(self.tag[crf], {self.text: [text.encode("utf-8") for text in texts]}))

    def readings(self, texts, crf):
        """What Python makes of the model's scores of its own windows."""
        pieces = [pieces_of(self.tokenizer, text) for text in texts]
        windows = [pack_windows(self.tokenizer, None, one, LENGTH, OVERLAP, 0) for one in pieces]
        rows = padded([window[:2] for of_text in windows for window in of_text])
        logits = iter(self.session.run(self.logits, dict(zip(self.ids, rows))))
        for one, of_text in zip(pieces, windows):
            scores = join_windows(
                [next(logits)[1 : len(window.input_ids) - 1] for window in of_text], LENGTH - 2, OVERLAP
            )
            (found,) = tag_decoding.decoded([(scores, one.spans)], self.moves[crf], LABELS)
            yield Reading(scores, one.spans, found)


@pytest.fixture(scope="module")
def graphs(tmp_path_factory):
    return Graphs(tmp_path_factory.mktemp("tagging_graph"))


def texts_of(seed, count, longest):
    return tricky_texts.random_texts(seed, count, longest, CHARACTERS)


def test_windows_without_a_question_are_those_of_python(graphs):
    texts = texts_of(1, 60, 60)
    found = graphs.session.run(graphs.windows, {graphs.text: texts})
    wanted = [
        (number, window)
        for number, text in enumerate(texts)
        for window in pack_windows(
            graphs.tokenizer, None, pieces_of(graphs.tokenizer, text), LENGTH, OVERLAP, 0
        )
    ]
    tricky_texts.require_same_windows(found, wanted, texts)
    assert found.counts.tolist() == np.bincount(found.of_text, minlength=60).tolist()
    assert found.lengths.tolist() == [len(pieces_of(graphs.tokenizer, text).ids) for text in texts]


def differing(graphs, texts, crf):
    """The texts of which the graph has other entities than Python, and the number of all entities."""
    rows = graphs.rows(texts, crf)
    return [text for text, row, reading in zip(texts, rows, graphs.readings(texts, crf))
            if not reading.agrees(row, text, graphs.moves[crf], LABELS)], sum(row["count"] for row in rows)


@pytest.mark.parametrize("crf", [False, True])
def test_entities_are_those_of_python(graphs, crf):
    bad, found = differing(graphs, texts_of(2 + crf, 200, 60), crf)
    assert bad == [] and found > 500


@pytest.mark.slow
@pytest.mark.parametrize("crf", [False, True])
def test_entities_of_50000_texts_are_those_of_python(graphs, crf):
    for seed in range(100):
        assert differing(graphs, texts_of(100 * (10 + crf) + seed, 500, 40), crf)[0] == []


def test_nothing_and_more_than_there_is_room_for(graphs):
    assert {
        name: values.shape for name, values in graphs.session.run(graphs.tag[0], {graphs.text: []}).items()
    } == {"count": (0,), **dict.fromkeys(("text", "label", "start", "end", "score"), (0, MAX_ENTITIES))}
    text = "".join(texts_of(5, 200, 40))
    empty, long = graphs.rows(["", text], False)
    assert entities_of(empty) == [] and (empty["count"], left_out(empty)) == (0, 0)
    assert (
        len(entities_of(long)) == MAX_ENTITIES < long["count"]
        and left_out(long) == long["count"] - MAX_ENTITIES
    )
    for entity in entities_of(long):
        assert text[entity["start"] : entity["end"]] == entity["text"] and entity["label"] in LABELS
