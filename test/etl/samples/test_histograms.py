import json

import numpy as np

from etl.samples.histograms import NAMES, Histograms, sum_histograms
from etl.samples.instances import Instances, tokenize_document
from etl.text.documents import Document
from etl.text.words import load_segmenter

INSTANCES = Instances(
    input_ids=np.zeros((2, 8), np.int32), word_starts=np.zeros((2, 8), bool),
    lengths=np.array([6, 8], np.int32),
    first_lengths=np.array([3, 4], np.int32), masked_lm_positions=np.array([[1, 0], [1, 5]], np.int32),
    masked_lm_ids=np.zeros((2, 2), np.int32), masked_lm_kinds=np.zeros((2, 2), np.int8),
    num_predictions=np.array([1, 2], np.int32), labels=np.array([1, 0], np.int32),
    is_cut=np.array([False, True]))
DOCUMENT = Document(("我爱北京天安门。", "北京“好”"), 0, 0)


def counted(document, tokenizer, word_share=1.0):
    histograms = Histograms(word_share)
    histograms.add_document(document, tokenize_document(document, tokenizer, load_segmenter()), tokenizer)
    return histograms.counts


def test_samples():
    histograms = Histograms()
    histograms.add_samples(INSTANCES)
    assert {name: dict(histograms.counts[name]) for name in NAMES[:4]} == {
        "lengths": {6: 1, 8: 1}, "masked_percents": {17: 1, 25: 1}, "masked_positions": {1: 2, 5: 1},
        "labels": {0: 1, 1: 1}}


def test_documents(tokenizer):
    counts = counted(DOCUMENT, tokenizer)
    assert counts["word_lengths"] == {1: 6, 2: 2, 3: 1}
    assert counts["words"] == {"北京": 2, "我": 1, "爱": 1, "天安门": 1, "。": 1, "好": 1, "[UNK]": 2}
    assert counts["unknown_texts"] == {"“": 1, "”": 1}


def test_words_of_a_share_of_the_documents(tokenizer):
    assert counted(DOCUMENT, tokenizer, word_share=0.0)["words"] == {}
    documents = [Document(("我爱北京" * number,), 0, 0) for number in range(1, 201)]
    assert 60 < sum(bool(counted(document, tokenizer, 0.5)["words"]) for document in documents) < 140


def test_sums_survive_json(tokenizer):
    histograms = Histograms()
    histograms.add_samples(INSTANCES)
    histograms.add_document(DOCUMENT, tokenize_document(DOCUMENT, tokenizer, load_segmenter()), tokenizer)
    part = json.loads(json.dumps(histograms.to_json()))
    total = sum_histograms([part, part])
    assert total["lengths"] == {6: 2, 8: 2} and total["words"]["北京"] == 4
    assert sum_histograms([]) == {name: {} for name in NAMES}
