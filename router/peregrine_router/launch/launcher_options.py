"""text-generation-launcher's options, from its command line and environment, in the words of `peregrine serve`."""

from argparse import ArgumentParser
from collections.abc import Iterator, Mapping
from typing import NoReturn

from peregrine_router.options.launcher import LAUNCHER_OPTIONS, LauncherOption


class LauncherOptionError(ValueError):
    """An option of text-generation-launcher that is refused. The message is one line."""


class _Parser(ArgumentParser):
    def error(self, message: str) -> NoReturn:
        raise LauncherOptionError(message)


def translate(argv: list[str], environment: Mapping[str, str]) -> tuple[list[str], list[str]]:
    """(arguments of `peregrine serve`, a line for each option that has no effect).

    Raises LauncherOptionError for an option that is refused, and for one that is given under two names.
    """
    given, rest = _parser().parse_known_args(argv)
    added, warnings = list[str](), list[str]()
    for option, value, source in _given(vars(given), environment):
        if option.effect == "refused":
            raise LauncherOptionError(f"{source} is not supported: {option.reason.replace('`', '')}")
        if option.effect == "no effect":
            warnings.append(f"{source} has no effect: {option.reason.replace('`', '')}")
        added += _mapped(option, value, source, [*rest, *added], environment)
    return [*rest, *added], warnings


def _parser() -> ArgumentParser:
    parser = _Parser(add_help=False, allow_abbrev=False)
    for option in (each for each in LAUNCHER_OPTIONS if each.has_flag):
        if option.takes_value:
            parser.add_argument(option.flag)
        else:
            # A switch takes a value in its environment variable only.
            parser.add_argument(option.flag, action="store_const", const="1")
    return parser


def _given(
    flags: Mapping[str, str | None], environment: Mapping[str, str]
) -> Iterator[tuple[LauncherOption, str, str]]:
    """Each option that asks for something, its value, and the name under which it was given; a flag comes first."""
    for option in LAUNCHER_OPTIONS:
        flag, variable = flags.get(option.name), environment.get(option.env, "")
        value, source = (variable, option.env) if flag is None else (flag, option.flag)
        if (flag is not None or variable) and value.lower() not in option.off:
            yield option, value, source


def _mapped(
    option: LauncherOption, value: str, source: str, argv: list[str], environment: Mapping[str, str]
) -> list[str]:
    """The flags that `option` becomes. Raises LauncherOptionError if one is given already."""
    flags = [value if each == "VALUE" else each for each in option.becomes]
    name = flags[0] if flags else ""
    if name and (environment.get(_env(name)) or any(each.partition("=")[0] == name for each in argv)):
        raise LauncherOptionError(f"{source} stands for {' '.join(flags)}, but {name} is given too: leave {source} out")
    return flags


def _env(flag: str) -> str:
    return flag.removeprefix("--").replace("-", "_").upper()
