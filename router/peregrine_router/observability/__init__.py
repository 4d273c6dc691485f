"""Observers of requests and steps: Prometheus metrics, log lines, OpenTelemetry spans.

Prompts and generated text are never recorded, but in traces if the operator asks for it.
"""
