"""Checkpoints and what stands beside them, read, written and converted.

Trainer, commands and server come in.
"""
