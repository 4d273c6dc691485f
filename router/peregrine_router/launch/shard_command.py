"""`peregrine shard`: a shard of a router on another machine. `peregrine keys`: the keys of both."""

import os
import sys
from argparse import ArgumentParser, Namespace
from pathlib import Path

import msgspec

from peregrine_router.launch.exit_codes import FAILED, WRONG_OPTIONS
from peregrine_router.launch.model_files import resolve_model
from peregrine_router.launch.temporary_folder import remove_temporary_folders
from peregrine_router.shards.shard_process import environment
from peregrine_server.addresses import (
    interface_of,
    listen,
    own_address,
    route_to,
    split_endpoint,
)
from peregrine_server.container import num_cpus
from peregrine_server.machines.curve_keys import CurveKeyError, read_keys, write_keys
from peregrine_server.machines.messages import Join, ModelSource, our_version
from peregrine_server.machines.remote_worker import RemoteWorker
from peregrine_server.protocol import ShardConfig

ENVIRONMENT_IS_SET = "PEREGRINE_SHARD_ENVIRONMENT"
"""Variable that says that this process has been started again with a shard's environment."""

QUIET = {"TORCH_CPP_LOG_LEVEL": "ERROR"}
"""Variables that the operator has not set: torch's store warns of each address that has no name."""


def run_keys(arguments: list[str]) -> int:
    """Runs `peregrine keys FILE`; the exit code."""
    parser = ArgumentParser(prog="peregrine keys", description="Make the keys by which shards on other machines join.")
    parser.add_argument("file", type=Path, help="file to write; give it to the router and every shard (--shard-keys)")
    try:
        write_keys(parser.parse_args(arguments).file)
    except (CurveKeyError, OSError) as error:
        return _refuse("keys", error)
    return 0


def run_shard(arguments: list[str]) -> int:
    """Runs `peregrine shard`; the exit code. Does not return before the router lets the shard go."""
    options = parse(arguments)
    if not os.environ.get(ENVIRONMENT_IS_SET):
        # OpenMP and malloc read theirs as the process starts.
        variables = {**QUIET, **environment(options.threads or num_cpus()), ENVIRONMENT_IS_SET: "1"}
        command = [sys.executable, "-m", "peregrine_router.cli", "shard", *arguments]
        os.execve(sys.executable, command, variables)
    try:
        return _run(options)
    except (ValueError, OSError) as error:
        return _refuse("shard", error)
    finally:
        remove_temporary_folders()


def parse(arguments: list[str]) -> Namespace:
    """The options of `peregrine shard`."""
    parser = ArgumentParser(
        prog="peregrine shard",
        description="Join a router on another machine, started with --shard-address, as one of its shards.",
    )
    add = parser.add_argument
    add("--router", required=True, metavar="tcp://HOST:PORT", help="the router's --shard-address")
    add("--rank", required=True, type=int, metavar="N", help="tensor parallel rank of this shard")
    add("--num-shard", required=True, type=int, metavar="M", help="shards of all machines together, as the router's")
    add("--shard-keys", required=True, type=Path, metavar="FILE", help="the key file, which `peregrine keys` made")
    add("--interface", metavar="NAME", help="network interface of the collectives; default: the one to the router")
    add("--gpu", type=int, default=0, metavar="N", help="index of this shard's GPU on this machine; default: 0")
    add("--threads", type=int, metavar="N", help="CPU threads; default: the CPUs of this machine")
    add(
        "--timeout",
        type=float,
        default=30.0,
        metavar="SECONDS",
        help="silence of the network until it ends",
    )
    add("--huggingface-hub-cache", metavar="FOLDER", help="folder of downloaded models")
    return parser.parse_args(arguments)


def _run(options: Namespace) -> int:
    host, port = split_endpoint(options.router)
    keys = read_keys(options.shard_keys)
    address = own_address(options.interface) if options.interface else route_to(host, port)
    store = listen(address) if options.rank == 0 else None
    join = Join(options.rank, options.num_shard, our_version(), address, 0 if store is None else store.getsockname()[1])

    def adapt(config: ShardConfig) -> ShardConfig:
        return msgspec.structs.replace(
            config,
            interface=interface_of(address) or "",
            store_fd=None if store is None else store.fileno(),
            device_index=options.gpu,
            num_threads=options.threads or num_cpus(),
        )

    def find_model(source: ModelSource) -> Path:
        return resolve_model(source.model_id, source.revision, options.huggingface_hub_cache)

    return RemoteWorker(options.router, keys, options.timeout).run(join, find_model, adapt)


def _refuse(command: str, error: Exception) -> int:
    print(f"peregrine {command}: {error}", file=sys.stderr)
    return WRONG_OPTIONS if isinstance(error, CurveKeyError) else FAILED
