"""Where training runs: ranks, devices, and checks of a graph for a device.

The only place that names npu_bridge.
"""
