"""Running a step: runner, CUDA graphs, memory profile, warm-up, choice of device.

Knows models by `models.interface` alone.
"""
