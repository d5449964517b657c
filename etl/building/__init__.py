"""Files → shards: ranges, units of work, merging, publishing.

For the command alone.
"""
