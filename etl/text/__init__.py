"""Text → documents, tokens and words.

Knows no samples; builder, trainer and server come in.
"""
