"""The routes of text-generation-inference: /generate, /generate_stream, /tokenize, /info, /health, /metrics.

Field names and wording are TGI's.
"""
