"""The model families behind one interface, and the layers, weight formats and loading that they share.

A family is a folder and a row of `registry.FAMILIES`, a weight format a module and a row of `formats.registry`.
"""
