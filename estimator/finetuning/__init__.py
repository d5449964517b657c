"""Fine-tuning: its flags, one file per kind, its job.

Used by its command, `npu_check`, `embed` and the exports of readers.
"""
