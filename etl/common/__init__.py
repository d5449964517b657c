"""Shared by all commands: flags, atomic files, progress.

Knows no model; anything may import it.
"""
