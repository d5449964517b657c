"""Files → rows and batches, of records and of labelled text.

Imported by trainers, commands and exports.
"""
