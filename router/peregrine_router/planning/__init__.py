"""`peregrine plan`: what a model takes, what of it fits a device, and how to serve it. Pure arithmetic.

Sizes are computed by what sizes a shard's memory, so that a start finds what was foretold.
"""
