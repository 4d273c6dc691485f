"""Shards on other machines: what they and the router say to each other before the first step, and their keys.

Imports no torch.
"""
