"""A shard: one process a device that runs its rank of the model. `worker.py` is its main loop.

`protocol.py` holds the messages between router and shards.
"""
