"""Model families and weight formats that other packages offer as entry points. Imports no torch."""

from importlib.metadata import entry_points
from typing import Any


class PluginError(ValueError):
    """An installed package offers an entry point that cannot be loaded. One line that says which."""


def plugin(group: str, name: str) -> Any | None:
    """The object of the entry point `name` of `group`, None if no installed package has one. Raises PluginError."""
    for entry_point in entry_points(group=group, name=name):
        try:
            return entry_point.load()
        except Exception as error:
            # A module of a stranger may raise anything while it is imported.
            cause = str(error).splitlines()[0] if str(error) else type(error).__name__
            raise PluginError(
                f"{entry_point.value}, which an installed package offers as {group} {name}, cannot be imported "
                f"({cause}): repair that package, or uninstall it"
            ) from error
    return None


def plugin_names(group: str) -> tuple[str, ...]:
    """The names of all entry points of `group`."""
    return tuple(each.name for each in entry_points(group=group))
