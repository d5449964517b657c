"""Learning rates and updates, as formulas.

Used by training and by readers of its checkpoints.
"""
