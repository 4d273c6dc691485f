"""The command line of `peregrine serve`: parsing, help, and errors in one line."""

import re
import sys
from argparse import Action, ArgumentParser
from typing import Any, NoReturn

from pydantic import ValidationError
from pydantic_settings import CliApp, CliSettingsSource, SettingsError

from peregrine_router.options import extra
from peregrine_router.settings import Settings

METAVARS = {"int": "N", "float": "N"}
"""Python type that pydantic-settings shows in the help -> placeholder of a value."""


def parse_settings(argv: list[str]) -> Settings:
    """Parses the options of `peregrine serve`. A wrong option is one line on stderr and exit code 2."""
    try:
        source = CliSettingsSource[Any](
            Settings,
            case_sensitive=False,
            cli_parse_none_str=Settings.model_config.get("cli_parse_none_str"),
            add_argument_method=_add_argument,
        )
        return CliApp.run(Settings, cli_args=argv, cli_settings_source=source)
    except ValidationError as error:
        _refuse(_describe(error))
    except SettingsError as error:
        _refuse(str(error).removeprefix("error parsing CLI: "))


def _describe(error: ValidationError) -> str:
    first = error.errors(include_url=False)[0]
    if not first["loc"]:
        return str(first["ctx"]["error"])
    name = str(first["loc"][0])
    flag, env = "--" + name.replace("_", "-"), extra(Settings.model_fields[name], "env")
    message = re.sub("^(Input|String)", "it", first["msg"].removeprefix("Value error, "))
    return f"{flag} (or {env}): {message}. Given: {first['input']!r}"


def _add_argument(parser: ArgumentParser, *flags: str, **options: Any) -> Action:
    """Adds an option to the parser, its value named by the field's metavar."""
    if "metavar" in options:
        metavar = extra(Settings.model_fields[options["dest"]], "metavar")
        options["metavar"] = metavar or METAVARS.get(options["metavar"], options["metavar"])
    options["help"] = options["help"].removesuffix(" (default: ())")
    return parser.add_argument(*flags, **options)


def _refuse(message: str) -> NoReturn:
    print(f"peregrine serve: {message} (see peregrine serve --help)", file=sys.stderr)
    raise SystemExit(2)
