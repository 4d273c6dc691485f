"""Metrics and logs: Prometheus series, histograms, step times, log lines.

Prompts and generated text are never recorded.
"""
