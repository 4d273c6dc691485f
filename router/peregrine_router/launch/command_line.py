"""The command line of `peregrine serve`: parsing, help, and errors in one line."""

import logging
import os
import re
import sys
from argparse import Action, ArgumentParser
from typing import Any, NoReturn, cast

from pydantic import ValidationError
from pydantic_settings import BaseSettings, CliApp, CliSettingsSource, SettingsError

from peregrine_router.launch.exit_codes import WRONG_OPTIONS
from peregrine_router.launch.launcher_options import LauncherOptionError, translate
from peregrine_router.options.declaration import extra
from peregrine_router.settings import GROUPS, Settings

log = logging.getLogger(__name__)

METAVARS = {"int": "N", "float": "N"}
"""Python type that pydantic-settings shows in the help -> placeholder of a value."""


def parse_settings(argv: list[str]) -> Settings:
    """Parses the options of `peregrine serve`, text-generation-launcher's among them.

    A wrong option is one line on stderr and exit code 2.
    """
    try:
        return _parse(translate(argv, os.environ)[0])
    except ValidationError as error:
        _refuse(_describe(error))
    except (SettingsError, LauncherOptionError) as error:
        _refuse(_with_remedy(str(error).removeprefix("error parsing CLI: ")))


def warn_of_ignored(argv: list[str]) -> None:
    """Logs a line for each option that `parse_settings` took although it has no effect here."""
    for line in translate(argv, os.environ)[1]:
        log.warning(line)


def _parse(argv: list[str]) -> Settings:
    """Raises ValidationError or SettingsError."""
    source = CliSettingsSource[Any](
        Settings,
        case_sensitive=False,
        cli_parse_none_str=Settings.model_config.get("cli_parse_none_str"),
        add_argument_method=_Sections().add,
    )
    return CliApp.run(Settings, cli_args=argv, cli_settings_source=source)


def _describe(error: ValidationError) -> str:
    first = error.errors(include_url=False)[0]
    if not first["loc"]:
        return str(first["ctx"]["error"])
    name = str(first["loc"][0])
    flag, env = "--" + name.replace("_", "-"), extra(Settings.model_fields[name], "env")
    message = re.sub("^(Input|String)", "it", first["msg"].removeprefix("Value error, "))
    return f"{flag} (or {env}): {message}. Given: {first['input']!r}"


def _with_remedy(message: str) -> str:
    """The message; of `peregrine serve MODEL` with the option that takes it."""
    found = re.fullmatch(r"unrecognized arguments: ([^-]\S*)", message)
    return f"{message}: give a model as --model-id {found[1]}" if found else message


class _Sections:
    """The sections of the help, one for each group of options."""

    def __init__(self) -> None:
        self._groups: dict[type[BaseSettings], Any] = {}

    def add(self, parser: ArgumentParser, *flags: str, **options: Any) -> Action:
        """Adds an option to its group's section, its value named by the field's metavar."""
        if "metavar" in options:
            metavar = extra(Settings.model_fields[options["dest"]], "metavar")
            options["metavar"] = metavar or METAVARS.get(options["metavar"], options["metavar"])
        options["help"] = options["help"].removesuffix(" (default: ())")
        return cast(Action, self._section(parser, options.get("dest")).add_argument(*flags, **options))

    def _section(self, parser: ArgumentParser, name: str | None) -> Any:
        """The section of the field `name`; the parser itself for --help, which has no field."""
        if not self._groups:
            self._groups = {group: parser.add_argument_group(str(group.__doc__).rstrip(".")) for group in GROUPS}
        return next((self._groups[group] for group in GROUPS if name in group.model_fields), parser)


def _refuse(message: str) -> NoReturn:
    print(f"peregrine serve: {message} (see peregrine serve --help)", file=sys.stderr)
    raise SystemExit(WRONG_OPTIONS)
