"""Checkpoints and the files beside them: read, written, converted.

Trainer, commands and server come in.
"""
