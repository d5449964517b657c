"""Files → shards: ranges, units of work, merging, publishing.

Used only by the command.
"""
