"""The shard processes and the ZeroMQ sockets to them.

The messages are defined by `peregrine_server.protocol`.
"""
