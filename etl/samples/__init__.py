"""Pure rules: a document → samples and their features.

For the builder alone.
"""
