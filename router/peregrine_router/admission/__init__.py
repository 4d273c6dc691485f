"""Admission of requests: parameters and their rules, tokenization, grammar checks, concurrency and queue limits.

An admitted request is a `request.Request`.
"""
