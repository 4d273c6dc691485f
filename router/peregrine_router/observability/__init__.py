"""Observers of requests and steps: Prometheus metrics, log lines.

Prompts and generated text are never recorded.
"""
