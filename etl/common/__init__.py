"""Shared by all commands: flags, atomic files, progress.

Knows nothing of ALBERT; anything may import it.
"""
