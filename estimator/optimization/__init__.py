"""Learning rates and updates, as formulas.

For training and for what reads its checkpoints.
"""
