"""Weight formats: how the linears' weights stand in a checkpoint and on a device.

A format is a module and a row of `registry.FORMATS`; the kernels that multiply it are the backends'.
"""
