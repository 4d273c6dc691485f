"""Start and end of the server: options become a listening port, running shards and a scheduler.

Nothing here runs while a request is served.
"""
