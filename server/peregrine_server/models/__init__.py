"""The model families behind one interface, and what they share: layers, weight formats, loading.

A family is a folder and a row of the registry.
"""
