"""The Falcon family: config.json's dialects, tensor names, partition over ranks, the model.

The only folder that knows Falcon.
"""
