"""`peregrine quantize`: a model written anew with quantized weights, by a process of the server."""

import subprocess
import sys
from argparse import ArgumentParser, Namespace
from pathlib import Path

from peregrine_router.launch.exit_codes import FAILED
from peregrine_router.launch.model_files import check_files, resolve_model

FORMATS = "int4", "int8", "fp8"
"""Formats that compressed-tensors has a layout for."""


def run_quantize(arguments: list[str]) -> int:
    """Runs `peregrine quantize`; the exit code."""
    options = parse(arguments)
    try:
        path = resolve_model(options.model, options.revision, options.huggingface_hub_cache)
        check_files(path)
    except (ValueError, OSError) as error:
        print(f"peregrine quantize: {error}", file=sys.stderr)
        return FAILED
    command = [sys.executable, "-m", "peregrine_server.quantization.quantize"]
    return subprocess.run([*command, str(path), str(options.output), options.format], check=False).returncode


def parse(arguments: list[str]) -> Namespace:
    """The options of `peregrine quantize`."""
    parser = ArgumentParser(
        prog="peregrine quantize",
        description="Write a model with quantized weights, as compressed-tensors stores them: it loads without being "
        "quantized again, in Peregrine and in transformers.",
    )
    add = parser.add_argument
    add("model", metavar="MODEL", help="model of the Hugging Face Hub, or a local folder")
    add("--format", required=True, choices=FORMATS, help="weight format, as of peregrine serve --quantize")
    add("--output", required=True, type=Path, metavar="FOLDER", help="folder to write; it must not exist")
    add("--revision", metavar="REVISION", help="commit, branch or tag of the model on the Hub")
    add("--huggingface-hub-cache", metavar="FOLDER", help="folder of downloaded models")
    return parser.parse_args(arguments)
