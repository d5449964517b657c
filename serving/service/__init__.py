"""Requests → answers: both interfaces, batching, versions.

For `server`.
"""
