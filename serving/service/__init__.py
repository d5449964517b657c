"""Requests → answers: both interfaces, batching, versions.

Used by `server`.
"""
