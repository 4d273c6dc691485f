"""The errors of a model that cannot be served. Imports no torch."""

AGAIN = "download it again"
"""The remedy for a damaged file."""


class ConfigError(ValueError):
    """config.json is missing or says something impossible. One line for the operator."""


class UnsupportedModel(ValueError):
    """config.json describes a model of another kind. One line that says which and what is supported."""
