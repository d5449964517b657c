"""Checkpoints and the files beside them: read, written, converted.

Imported by trainer, commands and server.
"""
