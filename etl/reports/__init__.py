"""Axes, charts and the page that holds them, for a report of any stage.

Builder and trainer come in.
"""
