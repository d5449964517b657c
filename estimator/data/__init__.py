"""Files → rows and batches, of records and of labelled text.

Imported by trainer and commands; the server uses `Example`.
"""
