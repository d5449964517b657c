"""Pure rules: a document → samples and their features.

Used only by the builder.
"""
