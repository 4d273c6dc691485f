"""Imports every module that the server may need, so that its bytecode lies in PYTHONPYCACHEPREFIX.

A module that none of these imports has no bytecode in the image.
"""

import importlib
import pkgutil

import peregrine_kernels
import peregrine_router
import peregrine_server

BY_NAME = ["uvicorn.loops.uvloop", "uvicorn.protocols.http.httptools_impl", "encodings.idna"]
"""Modules of others that are imported where they are used."""
LIBRARIES = "peregrine_kernels.native.lib"
"""C kernels, which are no modules."""


def main() -> None:
    names = [*BY_NAME]
    for package in (peregrine_kernels, peregrine_router, peregrine_server):
        names += [module.name for module in pkgutil.walk_packages(package.__path__, f"{package.__name__}.")]
    for name in names:
        if not name.startswith(LIBRARIES):
            try_import(name)


def try_import(name: str) -> None:
    """Imports a module, unless it is for GPUs and Triton is not there."""
    try:
        importlib.import_module(name)
    except ModuleNotFoundError as error:
        if error.name != "triton":
            raise


if __name__ == "__main__":
    main()
