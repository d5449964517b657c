"""The graph of a model, and what it costs.

Knows no files and no device; trainer and server come in.
"""
