"""Typed values of a config.json."""

from typing import Any

import pytest

from peregrine_server.models.errors import ConfigError
from peregrine_server.models.loading.config_reader import ConfigReader


def test_the_first_name_that_is_there_counts() -> None:
    """Older names are read where newer ones are absent or null."""
    read = ConfigReader({"hidden_size": None, "n_embed": 8})
    assert read.size("hidden_size", "n_embed") == 8
    assert read.size("absent", default=3) == 3


@pytest.mark.parametrize(
    ("hf", "message"),
    [
        ({}, "layers is missing"),
        ({"layers": True}, "layers must be an integer, not True"),
        ({"layers": 0}, "layers must be between 1 and 9, not 0"),
        ({"layers": 10}, "layers must be between 1 and 9, not 10"),
    ],
)
def test_a_wrong_size_is_named(hf: dict[str, Any], message: str) -> None:
    """One line with the name and the value."""
    with pytest.raises(ConfigError, match=f"^{message}$"):
        ConfigReader(hf).size("layers", limit=9)


@pytest.mark.parametrize("value", [float("nan"), float("inf"), 0, -1, True, "1"])
def test_a_number_is_positive_and_finite(value: object) -> None:
    """Anything else is refused."""
    with pytest.raises(ConfigError, match="epsilon must be a positive number"):
        ConfigReader({"epsilon": value}).positive("epsilon", 1e-5)
