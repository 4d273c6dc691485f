"""Kernels compiled ahead of time without a GPU: registers, spills, shared memory, tensor-core instructions.

For reports and tests; serving does not import it.
"""
