"""Random texts with all that is tricky for a tokenizer that tells the characters of its tokens."""
import random

import numpy as np

CHARACTERS = list("北京你好吗手机没信号怎么办abcx，？ 　AＢé") + [
    "e\u0301", "\u0301", "\u0323", "\u200b", "👨\u200d👩", "\U00020000", "\U0001d165", "\u302e", "ﬁ", "Σ",
    "\0", "\ufeff", "x" * 50, "İ", "각", "ss"
]


def random_texts(seed, count, longest, characters=CHARACTERS):
    rng = random.Random(seed)
    return ["".join(rng.choice(characters) for _ in range(rng.randint(0, longest))) for _ in range(count)]


def require_same_windows(found, wanted, texts):
    """Windows of the graph are those of Python: `wanted` are pairs of a text's number and its window."""
    assert found.of_text.tolist() == [number for number, _ in wanted]
    for row, (number, window) in enumerate(wanted):
        length = len(window.input_ids)
        for values, padded in ((window.input_ids, found.input_ids), (window.segment_ids, found.segment_ids),
                               (np.ones(length), found.input_mask), (window.spans, found.spans)):
            assert np.array_equal(padded[row, :length], values), texts[number]
            assert not padded[row, length:].any()
