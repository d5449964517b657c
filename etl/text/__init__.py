"""Text → documents, tokens and words.

Knows no samples; imported by builder, trainer and server.
"""
