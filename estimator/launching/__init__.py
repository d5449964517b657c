"""Several processes that train one model: the table of their devices, their cores, how they start and end.

Used by `launch`.
"""
