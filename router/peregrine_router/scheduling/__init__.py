"""Which tokens the next step computes: continuous batching, KV blocks, prefix cache, fairness, draft tokens.

Pure decisions: no torch, no I/O, no clock.
"""
