"""One training run, for any job: stretches, evaluations, resume, reports.

Used by the two trainers; exports and `npu_check` read its files.
"""
