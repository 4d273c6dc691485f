"""Weights arrive in the right place, in the serving type, from any kind of file, and in little memory."""

import json
import os
import shutil
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
import torch
from torch import Tensor

from checkpoints import build_model, write_checkpoint, write_tensors
from cpu_backends import native
from falcons import falcon_config, load, model_context, open_weights
from peregrine_server.distributed.tensor_parallel import TensorParallel
from peregrine_server.models.falcon.footprint import weight_bytes
from peregrine_server.models.falcon.tensors import expected_tensors
from peregrine_server.models.formats.dense import DenseFormat
from peregrine_server.models.loading.slices import Run, Slice, whole
from peregrine_server.models.loading.weights import PIECE_BYTES

CPU = torch.device("cpu")
UP = "h.1.mlp.dense_h_to_4h.weight"
ROWS = Slice(130, (Run(40, 3, 20), Run(100, 50, 80)))
"""Two runs of rows and zeros around them."""


def gather(source: Tensor, part: Slice) -> Tensor:
    """The slice of a tensor's rows, by definition."""
    out = torch.zeros(part.size, *source.shape[1:])
    for run in part.runs:
        out[run.target : run.target + run.length] = source[run.source : run.source + run.length]
    return out


@pytest.mark.parametrize("file_format", ["safetensors", "bin"])
@pytest.mark.parametrize("num_shards", [1, 3])
def test_slices_are_read_from_every_format(file_format: str, num_shards: int, tmp_path: Path) -> None:
    """Row slices stack, column slices stand side by side, padding is zero: from one file or many, new or legacy."""
    model = build_model("7b-odd")
    full = {name.removeprefix("transformer."): tensor for name, tensor in model.state_dict().items()}
    write_checkpoint(tmp_path, model, "new", file_format, num_shards)
    down = "h.0.mlp.dense_4h_to_h.weight"
    with open_weights(tmp_path, torch.float32)[0] as weights:
        rows = weights.rows((UP, ROWS), (UP, whole(200)))
        columns = weights.columns((down, ROWS), ("h.0.self_attention.dense.weight", whole(56)))
        vector = weights.vector(("h.1.mlp.dense_h_to_4h.bias", ROWS), ("ln_f.weight", whole(56)))
    assert torch.equal(rows, torch.cat((gather(full[UP], ROWS), full[UP])))
    dense = full["h.0.self_attention.dense.weight"]
    assert torch.equal(columns, torch.cat((gather(full[down].T, ROWS).T, dense), dim=1))
    assert torch.equal(vector, torch.cat((gather(full["h.1.mlp.dense_h_to_4h.bias"], ROWS), full["ln_f.weight"])))


def test_large_tensors_are_read_in_pieces(tmp_path: Path) -> None:
    """A tensor of many pieces is complete, cast piece by piece to the serving type."""
    model = build_model("7b-odd", vocab_size=3 * PIECE_BYTES // (2 * 56) + 5)
    write_checkpoint(tmp_path, model)
    reports: list[tuple[int, int]] = []
    with open_weights(tmp_path, torch.bfloat16, lambda *reported: reports.append(reported))[0] as weights:
        table = weights.rows(("word_embeddings.weight", whole(model.config.vocab_size)))
    assert torch.equal(table, model.transformer.word_embeddings.weight.bfloat16())
    assert [loaded for loaded, _ in reports] == sorted(loaded for loaded, _ in reports)
    assert len(reports) == 4
    assert reports[-1][0] == table.numel() * 4 < reports[-1][1]


def bytes_read() -> int:
    """By this process, in all."""
    return int(Path("/proc/self/io").read_text().split()[1])


@pytest.mark.parametrize("variant", ["7b", "40b", "11b"])
def test_a_rank_reads_only_its_slices(variant: str, tmp_path: Path) -> None:
    """The second of two ranks reads no more of the files than the weights that it keeps, and their headers."""
    path = write_checkpoint(tmp_path, build_model(variant))
    config = falcon_config(path)
    before = bytes_read()
    load(path, model_context(torch.float32, parallel=TensorParallel(1, 2)))
    assert bytes_read() - before <= weight_bytes(config, 2, "float32") + 10_000
    assert weight_bytes(config, 2, "float32") < 0.7 * (path / "model.safetensors").stat().st_size


@pytest.fixture(scope="module")
def large(tmp_path_factory: pytest.TempPathFactory) -> Iterator[dict[str, Path]]:
    """The same 300 MB of random bfloat16 weights as two safetensors shards and as one legacy file."""
    root = tmp_path_factory.mktemp("large")
    hidden, model = 2048, build_model("7b", num_hidden_layers=1)
    shape = {"hidden_size": hidden, "num_attention_heads": 32, "num_hidden_layers": 3, "vocab_size": 5000}
    for key, value in {**shape, "ffn_hidden_size": 4 * hidden}.items():
        setattr(model.config, key, value)
    paths = {}
    for file_format, num_shards in ("safetensors", 2), ("bin", 1):
        paths[file_format] = write_checkpoint(root / file_format, model, "new", file_format)
        for file in paths[file_format].glob("*model*"):
            file.unlink()
        specs = expected_tensors(falcon_config(paths[file_format]), DenseFormat())
        tensors = {name: torch.empty(spec.shape, dtype=torch.bfloat16).uniform_() for name, spec in specs.items()}
        write_tensors(paths[file_format], tensors, file_format, num_shards)
    yield paths
    shutil.rmtree(root)


@pytest.mark.slow
@pytest.mark.parametrize(
    ("file_format", "dtype", "quantize"),
    [
        ("safetensors", "bfloat16", None),
        ("safetensors", "float32", None),
        ("bin", "bfloat16", None),
        pytest.param("safetensors", "bfloat16", "int8", marks=native),
        pytest.param("safetensors", "bfloat16", "int4", marks=native),
    ],
)
@pytest.mark.parametrize("limit", [0, 80 * 2**20])
def test_memory_at_load(large: dict[str, Path], file_format: str, dtype: str, quantize: str | None, limit: int) -> None:
    """At its peak a load takes the rank's weights and one tensor more, which a packed linear's copy of it is, or what
    may be read ahead if that is more; a tensor that is rounded stands beside its 8 bits."""
    process = Path(__file__).with_name("load_process.py")
    command = [sys.executable, str(process), str(large[file_format]), dtype, str(limit), *filter(None, [quantize])]
    # So that glibc gives back what is freed at once, and no more than what is held is measured.
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join(sys.path), "MALLOC_MMAP_THRESHOLD_": "1000000"}
    taken = json.loads(subprocess.run(command, capture_output=True, text=True, check=True, env=environment).stdout)
    largest = 2048 * 4 * 2048 * torch.empty(0, dtype=getattr(torch, dtype)).itemsize
    assert taken["weights"] > 80e6
    rounded = largest // 2 if quantize else 0
    assert taken["peak"] <= taken["weights"] + max(limit, largest) + rounded + 5 * PIECE_BYTES
    assert taken["after"] <= taken["weights"] + 3 * PIECE_BYTES
