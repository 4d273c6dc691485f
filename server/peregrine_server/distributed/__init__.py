"""Tensor parallelism: the collectives of one group of ranks.

The collectives of a group of one do nothing.
"""
