"""Every option of `peregrine serve` once: flag, environment variable, default, bounds, help; a file a group.

Names and meanings are TGI's launcher's.
"""
