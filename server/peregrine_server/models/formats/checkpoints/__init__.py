"""Layouts of quantized checkpoints: a module each, a row of `registry.LAYOUTS`.

Each is a `WeightFormat` that reads what is there instead of rounding.
"""
