"""A trained model → a graph that takes raw text, checked to give the same outputs.

Used only by `export`.
"""
