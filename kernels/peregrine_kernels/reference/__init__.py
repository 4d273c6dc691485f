"""The oracle: every operation in plain PyTorch, on any device.

Written to be read; all other backends are tested against it.
"""
