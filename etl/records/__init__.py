"""The files on disk between builder and trainer, reading and writing.

Knows no builder; imported by both sides.
"""
