"""The persistent batch: tokens, lengths, block tables and sampling parameters of every slot.

Steps arrive as deltas to it.
"""
