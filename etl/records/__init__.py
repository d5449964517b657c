"""What lies on disk between builder and trainer, read and written.

Knows no builder; both sides come in.
"""
