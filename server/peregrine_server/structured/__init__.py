"""Structured output: grammars compiled by llguidance, and the token masks of running sequences.

The router checks grammars with the same compiler.
"""
