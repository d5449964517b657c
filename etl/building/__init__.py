"""Files → shards: ranges, units of work, merging, publishing.

Used by `build_pretrain`; `build_vocab` opens its text with it.
"""
