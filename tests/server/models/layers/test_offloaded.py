"""Layers with weights in the host's memory: the order of copies, and a model that computes the same to the bit."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import pytest
import torch
from torch import Tensor

from checkpoints import build_model, write_checkpoint
from fakes import train_backend
from falcons import falcon_config, forward, load, model_context
from gguf_checkpoints import write_gguf
from held_bytes import held_bytes
from paged_cases import page_batch
from peregrine_kernels import Backend
from peregrine_kernels.reference.backend import ReferenceBackend
from peregrine_router.launch.gguf_folder import make_folder
from peregrine_server.models.falcon import load as falcon_load
from peregrine_server.models.falcon.footprint import footprint, layer_sizes
from peregrine_server.models.falcon.model import Falcon
from peregrine_server.models.interface import ModelContext
from peregrine_server.models.layers.copies import HostCopies
from peregrine_server.models.layers.offloaded import OffloadedLayers
from peregrine_server.models.registry import load_format


class LateCopies(HostCopies):
    """Copies as late as may be: when they are waited for. `log` has what was asked, by turn of the kept layers."""

    def __init__(self) -> None:
        self.log: list[str] = []
        self._kept: list[int] = []

    def keep(self, num_bytes: int) -> Tensor:
        kept = super().keep(num_bytes)
        self._kept.append(kept.data_ptr())
        return kept

    def start(self, target: Tensor, source: Tensor) -> tuple[Tensor, Tensor, int]:
        turn = self._kept.index(source.data_ptr())
        self.log.append(f"start {turn}")
        target.fill_(255)  # The layer before may not be read any more.
        return target, source, turn

    def wait(self, arrival: tuple[Tensor, Tensor, int]) -> None:
        target, source, turn = arrival
        self.log.append(f"wait {turn}")
        target.copy_(source)


@dataclass(frozen=True, eq=False)
class Weight:
    """A layer of one tensor and a view of it."""

    values: Tensor
    rows: Tensor
    shared: Tensor


Weight.__module__ = "peregrine_test"


def shared_of(layer: Weight) -> Tensor:
    return layer.shared


def layers(count: int, shared: Tensor, num_rows: Sequence[int] = (3,)) -> list[Weight]:
    """Layers of tensors [num_rows, 5], of each number of rows in turn."""
    made = []
    for index in range(count):
        values = torch.full((num_rows[index % len(num_rows)], 5), float(index))
        made.append(Weight(values, values[1:], shared))
    return made


@pytest.mark.parametrize("num_rows", [(3,), (2, 3, 4, 5, 6, 7), (7, 6, 5, 4, 3, 2)])
def test_a_layer_arrives_while_the_one_before_runs(num_rows: tuple[int, ...]) -> None:
    """Each copy starts as soon as its buffer's layer has run, two turns ahead, on into the next step; each is waited
    for right before its layer runs. Layers may differ in size."""
    copies = LateCopies()
    shared = torch.ones(1)
    found = OffloadedLayers(layers(6, shared, num_rows), (0, 1, 3, 4), shared_of, copies)
    assert copies.log == ["start 0", "start 1"]
    for _ in range(2):
        copies.log.clear()
        for index, layer in enumerate(found):
            assert (layer.values == index).all()
            assert (layer.rows == index).all()
            copies.log.append(f"run {index}")
        assert copies.log == [
            *("wait 0", "run 0", "start 2", "wait 1", "run 1", "start 3", "run 2"),
            *("wait 2", "run 3", "start 0", "wait 3", "run 4", "start 1", "run 5"),
        ]


def test_the_device_has_two_layers_for_all_that_are_elsewhere() -> None:
    """Tensors that layers share stay, and views stay views."""
    shared = torch.ones(7)
    found = OffloadedLayers(layers(6, shared), (0, 1, 3, 4), shared_of, HostCopies())
    assert {layer.values.untyped_storage().data_ptr() for layer in (found[0], found[3])} == {
        found[0].rows.untyped_storage().data_ptr()
    }
    assert all(layer.shared is shared for layer in found)
    assert sum({each.values.untyped_storage().data_ptr(): 64 for each in found[:]}.values()) == 64 * (2 + 2)
    assert len(found) == 6


def test_a_buffer_is_as_large_as_the_largest_layer_of_its_turns() -> None:
    """Layers 0 and 3 have 2 and 5 rows, 1 and 4 have 7 and 3: a row is 20 bytes, a place a multiple of 16."""
    found = OffloadedLayers(layers(5, torch.ones(1), (2, 7, 1, 5, 3)), (0, 1, 3, 4), shared_of, HostCopies())
    storages = {each.untyped_storage().data_ptr(): each.untyped_storage() for layer in found for each in [layer.values]}
    assert sorted(storage.nbytes() for storage in storages.values()) == [20, 112, 144]


def backend_of(name: str) -> Backend:
    if name == "reference":
        return ReferenceBackend()
    from peregrine_kernels.gpu.backend import TritonBackend

    return TritonBackend()


@pytest.mark.slow
@pytest.mark.parametrize(
    ("variant", "name", "quantize"),
    [
        ("11b", "reference", None),
        ("rw-1b", "reference", None),
        ("rw-1b", "triton", "fp8"),
        ("11b", "triton", "int4"),
    ],
)
@torch.inference_mode()
def test_logits_are_those_of_a_model_that_is_all_on_the_device(
    variant: str, name: str, quantize: str | None, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """To the bit, prompt and decode, whether copies come early or late; and the tensors on the device have the bytes
    that were computed."""
    path = write_checkpoint(tmp_path, build_model(variant, num_hidden_layers=5, vocab_size=320))
    context = model_context(torch.float32, backend_of(name), quantize=quantize)
    whole, early = (load(path, replace(context, offload_bytes=size)) for size in (0, 1))
    monkeypatch.setattr(falcon_load, "copies_to", lambda device: LateCopies())
    expected = logits_of(whole)
    assert all(torch.equal(expected, logits_of(each)) for each in (early, load(path, early.context)))
    assert_computed_bytes(whole, early)


@pytest.mark.slow
@torch.inference_mode()
def test_layers_of_a_gguf_file_may_differ_in_size(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Logits are the same to the bit where some layers have more bits, as in llama.cpp's Q4_K_M; copies come late."""
    path = mixed_gguf(tmp_path, {"blk.1.ffn_down": "Q8_0", "blk.2.ffn_up": "Q4_0", "blk.3.attn_qkv": "F16"})
    context = gguf_context(path, torch.float32)
    assert len(set(layer_sizes(falcon_config(path), context.layout))) == 4
    monkeypatch.setattr(falcon_load, "copies_to", lambda device: LateCopies())
    whole, offloaded = (load(path, replace(context, offload_bytes=size)) for size in (0, 1))
    assert torch.equal(logits_of(whole), logits_of(offloaded))


def test_bytes_of_layers_that_differ_in_size_are_computed(tmp_path: Path) -> None:
    """To the byte, with the GPU's weights."""
    path = mixed_gguf(tmp_path, {"blk.1.attn_output": "F16", "blk.2.ffn_up": "Q4_0", "blk.4.attn_qkv": "F16"})
    context = gguf_context(path, torch.bfloat16)
    assert_computed_bytes(*(load(path, replace(context, offload_bytes=size)) for size in (0, 1)))


def mixed_gguf(path: Path, others: Mapping[str, str]) -> Path:
    """The folder of a file of Q4_1, with `others` by the tensors' names."""
    write_gguf(
        path / "falcon.gguf",
        "40b",
        lambda tensor: others.get(tensor.removesuffix(".weight"), "Q4_1"),
        tokenizer=train_backend(),
        num_hidden_layers=5,
        hidden_size=128,
        num_attention_heads=4,
        vocab_size=320,
    )
    return make_folder(path / "falcon.gguf")


def gguf_context(path: Path, dtype: torch.dtype) -> ModelContext:
    """The GPU's kernels for the file's types."""
    backend = backend_of("triton")
    return replace(model_context(dtype, backend), format=load_format(path, None, backend))


def assert_computed_bytes(whole: Falcon, offloaded: Falcon) -> None:
    """The tensors have the computed bytes; here the host's memory is the device's."""
    size = footprint(offloaded.config, offloaded.context.layout)
    assert size.host_bytes > size.buffer_bytes > 0
    held = [held_bytes(each) - held_bytes(each.rotary, each.context) for each in (whole, offloaded)]
    assert held[0] - held[1] == whole.weight_bytes - (size.weight_bytes + size.host_bytes)


def logits_of(model: Falcon) -> Tensor:
    """Logits of a prompt and of a decode after it."""
    tokens = torch.randint(257, (4,), generator=torch.Generator().manual_seed(0))
    cache = model.allocate_cache(4, 16)
    found = []
    for first, count in ((0, 3), (3, 1)):
        torch.manual_seed(0)  # the same block each time
        batch, _ = page_batch([(count, first + count)], 16)
        found.append(model.logits(forward(model, tokens[first : first + count], batch, cache)))
    return torch.cat(found)
