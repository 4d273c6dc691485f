"""The CPU backends: torch's own operations, and the native kernels called through ctypes.

The C sources are in `native`.
"""
