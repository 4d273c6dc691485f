"""Reading checkpoints: files, tensors and a rank's slices of them.

Knows no model family.
"""
