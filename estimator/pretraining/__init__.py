"""What pretraining has beyond a training: its flags, and its job.

For its command and `npu_check`.
"""
