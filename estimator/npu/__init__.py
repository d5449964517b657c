"""Where a training runs: ranks, devices, and what a device would say of a graph.

The only place that names npu_bridge.
"""
