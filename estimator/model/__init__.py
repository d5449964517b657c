"""The graph of a model, and its cost.

Knows no files and no device; trainer and server come in.
"""
