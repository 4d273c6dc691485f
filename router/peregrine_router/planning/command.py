"""`peregrine plan`: arguments in, a plan out."""

import json
import sys
from argparse import ArgumentParser, Namespace

from peregrine_router.hardware import DEVICES
from peregrine_router.launch.exit_codes import WRONG_OPTIONS
from peregrine_router.options.model import LAUNCHER_FORMATS, MAX_OFFLOAD_GB
from peregrine_router.planning.choices import KV_CACHE_DTYPES, Choice, all_formats, choose
from peregrine_router.planning.devices import CPU, find_device
from peregrine_router.planning.models import PlannedModel, find_model
from peregrine_router.planning.plan import Deployment
from peregrine_router.planning.report import as_json, as_text
from peregrine_server.models.formats.interface import ALL_KERNELS
from peregrine_server.models.formats.registry import format_names

NONE = "none"
"""The value of --quantize that asks for unquantized weights, and of --kv-cache-dtype for 16 bits."""
FITS, DOES_NOT_FIT = 0, 1


def run_plan(arguments: list[str]) -> int:
    """Runs `peregrine plan`; the exit code: 0 if it fits, 1 if not, 2 for a wrong option, told in one line."""
    options = parse(arguments)
    try:
        choice = answer(options)
    except (ValueError, OSError) as error:
        print(f"peregrine plan: {error}", file=sys.stderr)
        return WRONG_OPTIONS
    print(json.dumps(as_json(choice), indent=2) if options.json else as_text(choice))
    return FITS if choice.plan.fits else DOES_NOT_FIT


def parse(arguments: list[str]) -> Namespace:
    """The options of `peregrine plan`."""
    parser = ArgumentParser(
        prog="peregrine plan",
        description="Say what a model takes, what of it fits a device, and how to serve it. Needs no GPU and downloads "
        "nothing. Exits with 1 if it does not fit.",
    )
    add = parser.add_argument
    add(
        "model",
        metavar="MODEL",
        help="a published Falcon, such as falcon-7b, or the folder or GGUF file of a downloaded model",
    )
    add(
        "--device",
        default="cpu",
        metavar="NAME",
        help=f"{', '.join(device.name for device in DEVICES)}, a number of GiB, or cpu: this machine. Default: cpu",
    )
    add("--num-shard", type=int, default=1, metavar="N", help="devices that the model is split over. Default: 1")
    add(
        "--quantize",
        metavar="FORMAT",
        help=f"weight format: {', '.join((NONE, *format_names()))}. Default: the first of these that fits",
    )
    add("--kv-cache-dtype", metavar="DTYPE", help=f"KV cache of 8 bits: {' or '.join(KV_CACHE_DTYPES)}")
    add(
        "--cpu-offload-gb",
        type=float,
        default=0.0,
        metavar="GIB",
        help="GiB that the weights take less of each GPU, in the host's memory. Default: 0",
    )
    add(
        "--max-total-tokens",
        type=int,
        metavar="N",
        help="tokens of the longest request with its answer. Default: the length that the model was trained for",
    )
    add("--json", action="store_true", help="print JSON")
    return parser.parse_args(arguments)


def answer(options: Namespace) -> Choice:
    """The choice for the options. Raises ValueError with one line."""
    check_positive("--num-shard", options.num_shard)
    check_positive("--max-total-tokens", options.max_total_tokens)
    cache_dtype = options.kv_cache_dtype
    if cache_dtype not in (None, NONE, *KV_CACHE_DTYPES):
        raise ValueError(f"--kv-cache-dtype {cache_dtype} is not known: choose one of {', '.join(KV_CACHE_DTYPES)}")
    device, model = find_device(options.device), find_model(options.model)
    formats = formats_of(options.quantize, model)
    if not 0 <= options.cpu_offload_gb <= MAX_OFFLOAD_GB or (options.cpu_offload_gb and device.name == CPU):
        raise ValueError(f"--cpu-offload-gb {options.cpu_offload_gb:g} must be 0 to {MAX_OFFLOAD_GB}, and 0 on a CPU")
    deployment = Deployment(
        model=model,
        device=device,
        num_shards=options.num_shard,
        kv_cache_dtype=None if cache_dtype == NONE else cache_dtype,
        cpu_offload_gb=options.cpu_offload_gb,
        max_total_tokens=options.max_total_tokens or model.config.max_positions,
    )
    return choose(deployment, formats)


def formats_of(quantize: str | None, model: PlannedModel) -> tuple[str | None, ...]:
    """The formats to try: all, or the one that is asked for by our name or text-generation-launcher's. Raises
    ValueError."""
    name = LAUNCHER_FORMATS.get(str(quantize), quantize)
    if model.stored is not None:
        model.stored(name, ALL_KERNELS)
    if name is None or model.stored is not None:
        return all_formats(model)
    if name != NONE and name not in format_names():
        choices = ", ".join((NONE, *format_names()))
        raise ValueError(f"--quantize {quantize} is not known: choose one of {choices}, or leave it out")
    return (None if name == NONE else name,)


def check_positive(flag: str, value: int | None) -> None:
    """Raises ValueError if a count is below 1."""
    if value is not None and value < 1:
        raise ValueError(f"{flag} {value} must be at least 1")
