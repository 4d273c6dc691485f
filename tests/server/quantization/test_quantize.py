"""`peregrine quantize`: the folders that it writes, loaded by us and by transformers."""

import json
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from torch import Tensor
from transformers import AutoModelForCausalLM, CompressedTensorsConfig, FalconForCausalLM

from checkpoints import build_model, write_checkpoint
from falcons import forward, load, model_context
from peregrine_kernels import PagedBatch
from peregrine_kernels.cpu.torch_backend import TorchBackend
from peregrine_kernels.reference.backend import ReferenceBackend
from peregrine_server.models.formats.packing import round_to
from peregrine_server.models.formats.registry import weight_format
from peregrine_server.models.formats.rounded import RoundedFormat
from peregrine_server.models.loading.tensor_file import DTYPES
from peregrine_server.models.registry import load_format
from peregrine_server.quantization import quantize
from peregrine_server.quantization.layouts import LAYOUTS, SCALES
from peregrine_server.quantization.quantize import RECORD, write_quantized
from peregrine_server.quantization.safetensors_writer import INDEX
from quantized_checkpoints import LAYOUTS as LAYOUTS_READ
from quantized_checkpoints import linears
from quantized_checkpoints import write_quantized as quantized_checkpoint

WIDE = {"hidden_size": 128, "num_attention_heads": 8, "num_hidden_layers": 1}
TEXT_FILES = {"tokenizer.json": "{}", "tokenizer_config.json": "{}", "chat_template.jinja": "x"}


@pytest.fixture
def source(tmp_path: Path) -> Path:
    """A checkpoint in the type that most models are published in, with files beside it."""
    path = write_checkpoint(tmp_path / "source", build_model("7b", torch.bfloat16, **WIDE), num_shards=2)
    for name, text in TEXT_FILES.items():
        (path / name).write_text(text)
    return path


def rounded(name: str) -> FalconForCausalLM:
    """The model whose linears have the values that the format rounds them to."""
    model, found = build_model("7b", torch.bfloat16, **WIDE), weight_format(name, ReferenceBackend())
    assert isinstance(found, RoundedFormat)
    model.float()
    for _, linear in linears(model):
        weight = linear.weight.detach().bfloat16()
        values = round_to(found.stored(weight.shape[1]), weight, found.kernels).dequantize()
        linear.weight = torch.nn.Parameter(values)
    return model


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore:You passed `quantization_config`")  # transformers names the one that it takes
@pytest.mark.parametrize("name", LAYOUTS)
def test_transformers_loads_what_is_written(name: str, source: Path, tmp_path: Path) -> None:
    """Every weight has the value that rounding at load gives it, in the type of the scales: it multiplies in that."""
    write_quantized(source, tmp_path / "out", name)
    dequantize = CompressedTensorsConfig(dequantize=True)
    loaded = AutoModelForCausalLM.from_pretrained(tmp_path / "out", quantization_config=dequantize, dtype=torch.float32)
    expected = dict(rounded(name).named_parameters())
    found = dict(loaded.named_parameters())
    assert found.keys() == expected.keys()
    for each, values in found.items():
        assert torch.equal(values, expected[each].to(DTYPES[SCALES[name]]).float()), each


def logits(path: Path, quantize: str | None) -> Tensor:
    backend = TorchBackend()  # The reference rounds rows of two linears as one.
    context = replace(model_context(torch.float32, backend), format=load_format(path, quantize, backend))
    model, positions = load(path, context), torch.arange(8)
    batch = PagedBatch(positions, positions, torch.zeros(1, 1, dtype=torch.int64), (8,), (8,), 0)
    return model.logits(forward(model, 7 * positions, batch, model.allocate_cache(1, 8)))


@pytest.mark.parametrize("name", LAYOUTS)
def test_a_written_model_is_the_one_that_is_rounded_at_load(name: str, source: Path, tmp_path: Path) -> None:
    """Logits are equal to the bit: the second start needs no quantizing."""
    write_quantized(source, tmp_path / "out", name)
    assert torch.equal(logits(tmp_path / "out", None), logits(source, name))


def test_files_beside_the_weights_are_copied(source: Path, tmp_path: Path) -> None:
    """Tokenizer and chat template are there, the old weights not; a record says what made them."""
    write_quantized(source, tmp_path / "out", "int4")
    for name, text in TEXT_FILES.items():
        assert (tmp_path / "out" / name).read_text() == text
    found = {file.name for file in (tmp_path / "out").iterdir()} - TEXT_FILES.keys()
    files = {"config.json", "model-00001-of-00001.safetensors", INDEX, RECORD}
    assert found == files
    assert json.loads((tmp_path / "out" / RECORD).read_text())["format"] == "int4"


def test_weights_are_split_into_files(source: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Several files and their index hold the same model as one."""
    write_quantized(source, tmp_path / "one", "int8")
    monkeypatch.setattr(quantize, "MAX_FILE_BYTES", 100_000)
    write_quantized(source, tmp_path / "several", "int8")
    assert len(list((tmp_path / "several").glob("*.safetensors"))) > 2
    assert torch.equal(logits(tmp_path / "several", None), logits(tmp_path / "one", None))


@pytest.mark.parametrize("case", ["exists", "quantized", "no model"])
def test_what_cannot_be_written_is_refused(
    case: str, source: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """One line says what to do, and no folder is left."""
    output, path = tmp_path / "out", source
    if case == "exists":
        output.mkdir()
        (output / "mine").touch()
    elif case == "quantized":
        path = tmp_path / "quantized"
        quantized_checkpoint(path, "7b", LAYOUTS_READ["int8"])
    else:
        path = tmp_path
    before = sorted(tmp_path.iterdir())
    assert quantize.main([str(path), str(output), "int4"]) == 1
    error = capsys.readouterr().err
    assert error.startswith("peregrine quantize: ")
    assert error.count("\n") == 1
    assert sorted(tmp_path.iterdir()) == before


def test_a_failure_leaves_no_folder(source: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Only a complete model appears under the name that was asked for."""
    monkeypatch.setattr(quantize, "write_index", lambda *_: 1 / 0)
    with pytest.raises(ZeroDivisionError):
        write_quantized(source, tmp_path / "out", "int4")
    assert [each.name for each in tmp_path.iterdir()] == ["source"]


def test_widths_without_groups_are_refused(tmp_path: Path) -> None:
    """Groups of 8 divide every published width; another is named."""
    path = write_checkpoint(tmp_path / "source", build_model("7b-odd", hidden_size=84, ffn_hidden_size=100))
    with pytest.raises(ValueError, match=r"^groups of 8 do not divide linears of \[84, 100\] inputs: [^\n]*$"):
        write_quantized(path, tmp_path / "out", "int4")
