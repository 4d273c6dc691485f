"""Speculative decoding: draft tokens by prompt lookup, and how many of them are worth proposing.

Which drafts are accepted is decided from the sampled tokens; see `proposer.py`.
"""
