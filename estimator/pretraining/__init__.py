"""Pretraining: its flags and its job.

Used by its command and `npu_check`.
"""
