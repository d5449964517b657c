"""What fine-tuning has beyond a training: its flags, one file for each kind, its job.

For its command, `npu_check` and `embed`.
"""
