"""Uses of a checkpoint other than training: vectors of texts, averages, conversions.

Only the commands import from here.
"""
