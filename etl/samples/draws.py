"""Random numbers that depend on the seed and their purpose, never on the caller or the time."""
import hashlib

import numpy as np

_GOLDEN, _FIRST, _SECOND = (np.uint64(number)
                            for number in (0x9E3779B97F4A7C15, 0xBF58476D1CE4E5B9, 0x94D049BB133111EB))


def rng_for(seed: int, *parts: object) -> np.random.Generator:
    """A generator for one purpose, named by `parts`."""
    digest = hashlib.blake2b(repr((seed,) + parts).encode("utf-8"), digest_size=16).digest()
    return np.random.Generator(np.random.PCG64(int.from_bytes(digest, "little")))


def uniforms(seeds: np.ndarray, counters: np.ndarray) -> np.ndarray:
    """Numbers for many purposes at once, by SplitMix64 (Steele, Lea, Flood 2014): float64 in [0, 1), of the
    broadcast shape.

    Args:
      seeds: uint64, of each number's purpose.
      counters: int, which of the numbers of that seed.
    """
    numbers = (counters + 1).astype(np.uint64) * _GOLDEN + seeds
    numbers = (numbers ^ (numbers >> np.uint64(30))) * _FIRST
    numbers = (numbers ^ (numbers >> np.uint64(27))) * _SECOND
    return ((numbers ^ (numbers >> np.uint64(31))) >> np.uint64(11)) * 2.0 ** -53
