"""The graph of a model, and its cost.

Knows no files and no device; imported by trainer and server.
"""
