"""Declaration of an option, the types of its value, and the environment as its source."""

import os
from typing import Annotated, Any, Literal

from pydantic import BeforeValidator, Field
from pydantic.fields import FieldInfo
from pydantic_settings import PydanticBaseSettingsSource


def _split(value: Any) -> Any:
    """Splits names at commas; the names of a flag that is given more than once are joined.

    Raises ValueError if names are given and all are empty: an unset variable in `--api-key "$KEY"` would otherwise open
    the server.
    """
    given = [value] if isinstance(value, str) else value or ()
    names = tuple(name.strip() for each in given for name in str(each).split(",") if name.strip())
    if given and not names:
        raise ValueError("it is empty; give it a value or leave the option out")
    return names


def _prefix(value: Any) -> Any:
    """Begins a path with a slash and ends it without one; `/` is no prefix."""
    return f"/{value.strip('/')}".rstrip("/") if isinstance(value, str) else value


def _level(value: Any) -> Any:
    """A level in any case, or by TGI's name for it."""
    name = str(value).lower()
    return {"warn": "warning", "trace": "debug"}.get(name, name)


NEVER_EMPTY = ("api_key", "api_key_file")
"""Options whose environment variable must not be empty: one that a deployment failed to fill would open the server."""
NameList = Annotated[tuple[str, ...], BeforeValidator(_split)]
KeyList = Annotated[tuple[str, ...], BeforeValidator(_split), Field(repr=False)]
LogLevel = Annotated[Literal["debug", "info", "warning", "error"], BeforeValidator(_level)]
PathPrefix = Annotated[str, BeforeValidator(_prefix), Field(pattern=r"^(/[\w.~-]+)*$")]


def option(default: Any, env: str, help: str, *, metavar: str | None = None, **bounds: Any) -> Any:
    """Declares a field that the command line sets, else the environment variable `env`.

    `metavar` stands for the value in the help; by default that is the choices, or N for a number.
    """
    shown: dict[str, Any] = {"env": env, "metavar": metavar}
    return Field(default, description=f"{help} [env: {env}]", json_schema_extra=shown, **bounds)


def extra(field: FieldInfo, name: Literal["env", "metavar"]) -> Any:
    """The environment variable or metavar of an option."""
    assert isinstance(field.json_schema_extra, dict)
    return field.json_schema_extra[name]


class Environment(PydanticBaseSettingsSource):
    """Source of the options that an environment variable sets. An empty variable is no value, but where that would open
    the server to everybody."""

    def get_field_value(self, field: FieldInfo, field_name: str) -> tuple[Any, str, bool]:
        """(value or None, name, whether it is JSON), as pydantic-settings wants them."""
        value = os.environ.get(extra(field, "env"))
        return value if field_name in NEVER_EMPTY else value or None, field_name, False

    def __call__(self) -> dict[str, Any]:
        """The value of each option whose variable is set."""
        fields = self.settings_cls.model_fields
        values = {name: self.get_field_value(field, name)[0] for name, field in fields.items()}
        return {name: value for name, value in values.items() if value is not None}
