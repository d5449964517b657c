"""One function over many elements, on this machine or a cluster: the only place that knows Beam.

Knows nothing of what the function does; used only by the builder.
"""
