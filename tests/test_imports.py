"""Imports point one way: router -> server.protocol (and what imports no torch), server -> kernels -> torch."""

import ast
import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent
FOR_THE_ROUTER = (
    "peregrine_server",
    "peregrine_server.structured.compiler",
    "peregrine_server.protocol",
    "peregrine_server.models.falcon.footprint",
    "peregrine_server.models.falcon.config",
)


def imports(package: str) -> Iterator[tuple[Path, str]]:
    """(file, imported module) of every import statement in a package, also those inside functions."""
    for file in sorted((ROOT / package).rglob("*.py")):
        for node in ast.walk(ast.parse(file.read_text())):
            if isinstance(node, ast.Import):
                yield from ((file, alias.name) for alias in node.names)
            elif isinstance(node, ast.ImportFrom):
                yield file, node.module or ""


def test_the_router_imports_no_tensors() -> None:
    """No torch, no transformers, no kernels, and of the server only what needs none of them."""
    for file, module in imports("router"):
        top = module.partition(".")[0]
        assert top not in ("torch", "transformers", "triton", "peregrine_kernels"), file
        assert top != "peregrine_server" or module in FOR_THE_ROUTER, f"{file} imports {module}"


def test_the_server_knows_no_router_and_runs_no_foreign_model_code() -> None:
    """Shards depend on the kernels alone."""
    for file, module in imports("server"):
        assert module.partition(".")[0] not in ("peregrine_router", "transformers", "pickle", "marshal"), file


def test_the_kernels_import_nothing_of_ours() -> None:
    """Tensor code could be lifted out as it is."""
    for file, module in imports("kernels"):
        assert module.partition(".")[0] not in ("peregrine_router", "peregrine_server", "transformers"), file


@pytest.mark.parametrize(
    "module",
    [
        "peregrine_router.cli",
        "peregrine_router.admission.grammar_checker",
        "peregrine_router.launch.serve",
        "peregrine_server.models.falcon.footprint",
    ],
)
def test_no_torch_is_loaded_by(module: str) -> None:
    """Also indirectly: the router starts in a second, and needs no gigabyte."""
    code = f"import sys, {module}; sys.exit('torch' in sys.modules or 'transformers' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0


def test_no_triton_is_loaded_on_a_cpu() -> None:
    """A shard on a CPU needs none, and has its backend without one."""
    code = (
        "import sys, torch, peregrine_server.execution.runner, peregrine_kernels;"
        "peregrine_kernels.backend_for(torch.device('cpu'));"
        "sys.exit('triton' in sys.modules)"
    )
    environment = {name: value for name, value in os.environ.items() if name != "PEREGRINE_BACKEND"}
    assert subprocess.run([sys.executable, "-c", code], check=False, env=environment).returncode == 0
