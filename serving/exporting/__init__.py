"""A trained model → a graph that takes raw text, checked to give the same outputs.

Used by `export`; the server replays warm-up records as this package writes them.
"""
