"""The router process: HTTP, admission, scheduling and streaming. Imports no torch.

Read the folders from top to bottom of a request's life: launch, api, http, engine, admission, scheduling, text, shards.
"""
