"""A trained model → a graph that takes raw text, and the proof that it answers the same.

For `export` alone.
"""
