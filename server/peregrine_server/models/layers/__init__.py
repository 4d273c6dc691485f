"""Layers that families share: token embedding and output head, norms, positions.

They hold tensors and know no family.
"""
