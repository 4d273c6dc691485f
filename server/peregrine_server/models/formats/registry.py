"""The weight formats by name. Imports no torch.

A format outside of this package is an entry point of the group `peregrine.weight_formats`: its name is what --quantize
takes, its value a `WeightFormatFactory`.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from peregrine_server.models.formats.dense import DenseFormat
from peregrine_server.models.formats.int8 import Int8Format
from peregrine_server.models.formats.interface import WeightFormat, WeightFormatFactory
from peregrine_server.models.plugins import plugin, plugin_names

if TYPE_CHECKING:
    from peregrine_kernels import Backend

FORMATS: dict[str, WeightFormatFactory] = {"int8": Int8Format}
"""The formats of this package that --quantize names."""
ENTRY_POINTS = "peregrine.weight_formats"


def weight_format(name: str | None, backend: Backend | None = None) -> WeightFormat:
    """The format that --quantize names, for a backend; None is dense. `backend` None: to size weights alone.

    Raises ValueError for an unknown name, PluginError, UnsupportedWeight if the backend has no kernels for it.
    """
    if name is None:
        return DenseFormat(backend)
    if name in FORMATS:
        return FORMATS[name](backend)
    factory: WeightFormatFactory | None = plugin(ENTRY_POINTS, name)
    if factory is not None:
        return factory(backend)
    raise ValueError(f"--quantize {name} is not known: choose one of {', '.join(format_names())}, or leave it out")


def format_names() -> tuple[str, ...]:
    """The names that --quantize takes."""
    return (*FORMATS, *plugin_names(ENTRY_POINTS))
