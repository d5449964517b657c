"""One training, whatever the model learns: parts, evaluations, resume, reports.

For the two trainers.
"""
