"""The floors of the house: imports run downward only, and nothing heavy is loaded where it is not needed."""

import ast
import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent
PACKAGES = {
    "router/peregrine_router": (
        {"cli"},
        {"planning"},
        {"launch"},
        {"app"},
        {"api"},
        {"http"},
        {"observability"},
        {"engine"},
        {"admission"},
        {"scheduling", "text"},
        {"interfaces"},
        {"request", "settings", "shards"},
        {"hardware", "options"},
    ),
    "router/peregrine_router/api": (
        {"platforms", "tokenization"},
        {"openai"},
        {"token_json"},
        {"tgi"},
        {"docs_page", "health", "openapi"},
    ),
    "server/peregrine_server": (
        {"machines", "quantization"},
        {"worker"},
        {"execution"},
        {"speculation"},
        {"sampling"},
        {"batch", "structured", "models"},
        {"distributed"},
        {"addresses", "container", "parent", "protocol"},
    ),
    "server/peregrine_server/models": (
        {"falcon", "registry"},
        {"interface", "layers"},
        {"formats"},
        {"loading"},
        {"errors", "plugins"},
    ),
    "kernels/peregrine_kernels": (
        {"aot", "select"},
        {"cpu", "gpu"},
        {"reference"},
        {"dense_linear", "fp8", "int4", "int8", "nf4"},
        {"interface", "native"},
        {"kv_cache", "weights"},
    ),
}
"""Folder -> its rooms, from the top floor down. A room imports from lower floors, never from its own or a higher."""
FOR_THE_ROUTER = (
    "peregrine_server",
    "peregrine_server.container",
    "peregrine_server.addresses",
    "peregrine_server.execution.memory_budget",
    "peregrine_server.machines.curve_keys",
    "peregrine_server.machines.messages",
    "peregrine_server.machines.remote_worker",
    "peregrine_server.models.formats.interface",
    "peregrine_server.models.formats.registry",
    "peregrine_server.models.interface",
    "peregrine_server.models.loading.gguf_header",
    "peregrine_server.models.registry",
    "peregrine_server.parent",
    "peregrine_server.protocol",
    "peregrine_server.structured.compiler",
)
"""The server's modules that the router may import; none of them loads torch."""
MAX_LINES = 300


def imports(package: str) -> Iterator[tuple[Path, str]]:
    """(file, imported module) of every import statement in a package, also those inside functions."""
    for file in sorted((ROOT / package).rglob("*.py")):
        for node in ast.walk(ast.parse(file.read_text())):
            if isinstance(node, ast.Import):
                yield from ((file, alias.name) for alias in node.names)
            elif isinstance(node, ast.ImportFrom):
                yield file, node.module or ""


@pytest.mark.parametrize("folder", PACKAGES)
def test_every_room_has_a_floor(folder: str) -> None:
    """The table names every module and folder, and no other."""
    ignored = {"__init__", "__pycache__", "demo"}
    found = {path.stem for path in (ROOT / folder).iterdir() if path.is_dir() or path.suffix == ".py"}
    assert found - ignored == set().union(*PACKAGES[folder])


@pytest.mark.parametrize("folder", PACKAGES)
def test_no_import_runs_upward(folder: str) -> None:
    """A room imports from lower floors alone, so that there is no circle among them."""
    floor_of = {room: floor for floor, rooms in enumerate(PACKAGES[folder]) for room in rooms}
    package = folder.partition("/")[2].replace("/", ".")
    for file, module in imports(folder):
        room = file.relative_to(ROOT / folder).with_suffix("").parts[0]
        if room == "__init__" or not module.startswith(f"{package}."):
            continue
        imported = module.removeprefix(f"{package}.").partition(".")[0]
        assert imported == room or floor_of[imported] > floor_of[room], f"{file} imports {module}"


def test_the_router_imports_no_tensors() -> None:
    """No torch, no transformers, no kernels, and of the server only what needs none of them."""
    for file, module in imports("router"):
        top = module.partition(".")[0]
        assert top not in ("torch", "transformers", "triton", "peregrine_kernels"), file
        assert top != "peregrine_server" or module in FOR_THE_ROUTER, f"{file} imports {module}"


def test_the_server_knows_no_router_and_runs_no_foreign_model_code() -> None:
    """Shards depend on the kernels alone."""
    for file, module in imports("server"):
        assert module.partition(".")[0] not in ("peregrine_router", "transformers"), file


@pytest.mark.parametrize("package", ["router", "server", "kernels"])
def test_nothing_unpickles(package: str) -> None:
    """Modules that run what the bytes they read name are imported nowhere; torch.load has weights_only."""
    for file, module in imports(package):
        top = module.partition(".")[0]
        assert top not in ("pickle", "marshal", "shelve", "dill", "cloudpickle", "joblib", "multiprocessing"), file


def test_only_the_start_fetches_anything() -> None:
    """The model is fetched before the port opens; what answers requests has no client of HTTP."""
    clients = ("aiohttp", "ftplib", "http.client", "httpx", "huggingface_hub", "requests", "urllib.request", "urllib3")
    found = {
        file.relative_to(ROOT).as_posix()
        for package in ("router", "server")
        for file, module in imports(package)
        if module.startswith(clients)
    }
    assert found == {"router/peregrine_router/launch/model_files.py"}


def test_the_kernels_import_nothing_of_ours() -> None:
    """Tensor code could be lifted out as it is."""
    for file, module in imports("kernels"):
        assert module.partition(".")[0] not in ("peregrine_router", "peregrine_server", "transformers"), file


def test_one_family_is_named_in_its_own_folder_alone() -> None:
    """The rest of the server serves models of any family."""
    folder = ROOT / "server" / "peregrine_server"
    naming = [file for file in folder.rglob("*.py") if "Falcon" in file.read_text()]
    assert naming
    assert all(file.is_relative_to(folder / "models" / "falcon") for file in naming), naming


@pytest.mark.slow
@pytest.mark.parametrize(
    "module",
    ["peregrine_router.cli", "peregrine_router.launch.serve", "peregrine_router.planning.command", *FOR_THE_ROUTER],
)
def test_no_torch_is_loaded_by(module: str) -> None:
    """Also indirectly: the router starts in a second, and needs no gigabyte."""
    code = f"import sys, {module}; sys.exit('torch' in sys.modules or 'transformers' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0


@pytest.mark.slow
def test_no_triton_is_loaded_on_a_cpu() -> None:
    """A shard on a CPU needs none, and has its backend without one."""
    code = (
        "import sys, torch, peregrine_server.execution.runner, peregrine_kernels;"
        "peregrine_kernels.backend_for(torch.device('cpu'));"
        "sys.exit('triton' in sys.modules)"
    )
    environment = {name: value for name, value in os.environ.items() if name != "PEREGRINE_BACKEND"}
    assert subprocess.run([sys.executable, "-c", code], check=False, env=environment).returncode == 0


@pytest.mark.parametrize("package", ["router", "server", "benchmarks", "scripts", "tests"])
def test_files_are_short(package: str) -> None:
    """A file that is longer than a reader can keep in mind is two."""
    lengths = {file: file.read_text().count("\n") for file in (ROOT / package).rglob("*.py")}
    assert not {str(file): length for file, length in lengths.items() if length > MAX_LINES}
