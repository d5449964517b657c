"""Axes, charts and pages, for the reports of all stages.

Imported by builder and trainer.
"""
