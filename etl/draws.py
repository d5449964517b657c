"""Random numbers that depend on the seed and on what they are for, never on who asks or when."""
import hashlib

import numpy as np

_GOLDEN, _FIRST, _SECOND = (np.uint64(number) for number in (0x9E3779B97F4A7C15, 0xBF58476D1CE4E5B9, 0x94D049BB133111EB))


def rng_for(seed: int, *parts: object) -> np.random.Generator:
    """A generator for one purpose, which `parts` name."""
    digest = hashlib.blake2b(repr((seed,) + parts).encode("utf-8"), digest_size=16).digest()
    return np.random.Generator(np.random.PCG64(int.from_bytes(digest, "little")))


def uniforms(seeds: np.ndarray, purpose: int, count: int) -> np.ndarray:
    """Numbers for many samples at once: float64 [seeds, count] in [0, 1), by SplitMix64 (Steele, Lea, Flood 2014).

    Args:
      seeds: uint64 [seeds]; a row depends on its seed alone, not on its neighbours.
      purpose: another one gives other numbers, for calls of the same count.
    """
    numbers = np.arange(purpose * count + 1, (purpose + 1) * count + 1, dtype=np.uint64) * _GOLDEN + seeds[:, None]
    numbers = (numbers ^ (numbers >> np.uint64(30))) * _FIRST
    numbers = (numbers ^ (numbers >> np.uint64(27))) * _SECOND
    return ((numbers ^ (numbers >> np.uint64(31))) >> np.uint64(11)) * 2.0 ** -53
