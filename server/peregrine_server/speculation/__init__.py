"""Speculative decoding: draft tokens by prompt lookup, draft lengths by acceptance rate and cost.

`proposer.py` decides from the sampled tokens which draft tokens are accepted.
"""
