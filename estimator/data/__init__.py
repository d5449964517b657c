"""Files → rows and batches, of records and of labelled text.

Trainer and commands come in; the server takes `Example`.
"""
