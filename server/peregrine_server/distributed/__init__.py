"""Tensor parallelism: the collectives of one group of ranks.

A group of one does nothing.
"""
