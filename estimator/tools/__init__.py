"""What is done with a checkpoint beside training: vectors of texts, means, conversions.

Only the commands import from here.
"""
