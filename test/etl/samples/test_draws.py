import numpy as np

from etl.samples.draws import rng_for, uniforms


def test_rng_depends_on_all_its_parts_and_their_places():
    draws = {parts: rng_for(1, *parts).random()
             for parts in [(), ("a",), ("a", 0), ("a", 1), (0, "a"), (b"a", 0)]}
    assert len(set(draws.values())) == len(draws)
    assert rng_for(1, "a", 0).random() == draws["a", 0]
    assert rng_for(2, "a", 0).random() != draws["a", 0]


def test_uniforms_are_splitmix64():
    state, numbers = 12345, []
    for _ in range(6):
        state = (state + 0x9E3779B97F4A7C15) % (1 << 64)
        mixed = (state ^ state >> 30) * 0xBF58476D1CE4E5B9 % (1 << 64)
        mixed = (mixed ^ mixed >> 27) * 0x94D049BB133111EB % (1 << 64)
        numbers.append(((mixed ^ mixed >> 31) >> 11) / (1 << 53))
    assert uniforms(np.array(12345, np.uint64), np.arange(6)).tolist() == numbers


def test_a_number_depends_on_its_seed_and_counter_alone():
    draws = uniforms(np.array([[7], [8], [7]], np.uint64), np.arange(5))
    assert draws[0].tolist() == draws[2].tolist()
    assert not set(draws[0]) & set(draws[1])
    assert uniforms(np.array([8, 7], np.uint64), np.array([4, 0])).tolist() == [draws[1, 4], draws[0, 0]]


def test_uniforms_are_uniform():
    draws = uniforms(np.arange(1000, dtype=np.uint64)[:, None], np.arange(100))
    assert 0 <= draws.min() and draws.max() < 1
    np.testing.assert_allclose(np.histogram(draws, 10, (0, 1))[0] / 1e5, [0.1] * 10, atol=0.005)
    assert abs(np.corrcoef(draws[:, 0], draws[:, 1])[0, 1]) < 0.1
