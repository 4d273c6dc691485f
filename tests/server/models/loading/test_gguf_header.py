"""Headers of GGUF files: those that the `gguf` package writes, and those that lie."""

import struct
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import gguf
import pytest

from fakes import train_backend
from gguf_checkpoints import MIXES, write_gguf
from peregrine_server.models.errors import ConfigError, UnsupportedModel
from peregrine_server.models.loading.gguf_header import (
    BLOCK_TYPES,
    MAX_ENTRIES,
    MAX_HEADER_BYTES,
    OTHER_TYPES,
    read_header,
)

Change = Callable[[bytes], bytes]
KEY = struct.pack("<Q", 3) + b"key"
ENTRY = struct.pack("<Q", 1) + b"t" + struct.pack("<IQQ", 2, 64, 8)
"""A tensor's name and shape: 8 rows of 64."""


@pytest.fixture(scope="module")
def file(tmp_path_factory: pytest.TempPathFactory) -> Path:
    file = tmp_path_factory.mktemp("gguf") / "falcon.gguf"
    write_gguf(file, "40b", MIXES["Q4_K_M of 40B"], metadata={"a.flag": True, "a.text": "é"}, tokenizer=train_backend())
    return file


def header(num_tensors: int = 0, num_keys: int = 0, body: bytes = b"", version: int = 3) -> bytes:
    """A file with those counts, and what follows them."""
    return b"GGUF" + struct.pack("<IQQ", version, num_tensors, num_keys) + body


def tensor(kind: int = 0, offset: int = 0) -> bytes:
    return ENTRY + struct.pack("<IQ", kind, offset)


def test_what_the_package_writes_is_read(file: Path) -> None:
    """Every key and every tensor's type, shape and place are those of the package's own reader."""
    ours, theirs = read_header(file), gguf.GGUFReader(file)
    fields = {name: field for name, field in theirs.fields.items() if not name.startswith("GGUF.")}
    for name, field in fields.items():
        value = field.contents()
        assert ours.metadata[name] == (tuple(value) if isinstance(value, list) else value)
    assert ours.metadata.keys() == fields.keys()
    for each in theirs.tensors:
        found = ours.tensors[each.name]
        assert found.shape == tuple(int(size) for size in each.shape[::-1])
        assert (found.type.name, found.offset, found.num_bytes) == (
            each.tensor_type.name,
            each.data_offset,
            each.n_bytes,
        )
    assert len(ours.tensors) == len(theirs.tensors)


def test_blocks_have_the_sizes_of_the_package() -> None:
    """Numbers, names, weights and bytes of every type that is read, and the names of those that are not."""
    for number, block in BLOCK_TYPES.items():
        kind = gguf.GGMLQuantizationType(number)
        assert (kind.name, gguf.GGML_QUANT_SIZES[kind]) == (block.name, (block.size, block.num_bytes))
    for number, name in OTHER_TYPES.items():
        assert gguf.GGMLQuantizationType(number).name == name


def test_another_architecture_is_told_first(tmp_path: Path) -> None:
    """Before what is wrong with its tensors, or that the header goes on for longer than any Falcon's."""
    name, file = b"general.architecture", tmp_path / "llama.gguf"
    key = struct.pack("<Q", len(name)) + name + struct.pack("<IQ", 8, 5) + b"llama"
    for rest in tensor(10), b"":
        file.write_bytes(header(1, 1, key + rest))
        with pytest.raises(
            UnsupportedModel, match=r"llama.gguf: its architecture 'llama' is not supported: give a mod"
        ):
            read_header(file, ["falcon"])


@pytest.mark.parametrize(
    ("content", "error", "message"),
    [
        (b"", ConfigError, "is truncated, or its header is damaged, after byte 0; download it again"),
        (b"\x93NUMPY..", ConfigError, "is no GGUF file"),
        (b"version https://git-lfs.github.com/spec/v1", ConfigError, "is a pointer of Git LFS, not the file: run `git"),
        (b"lmgg" + bytes(40), UnsupportedModel, "is of the format before GGUF, which is not read"),
        (b"tjgg" + bytes(40), UnsupportedModel, "is of the format before GGUF, which is not read"),
        (b"ccgg" + bytes(40), UnsupportedModel, "is of the format before GGUF, which is not read"),
        (b"GGUF" + struct.pack(">IQQ", 3, 0, 0), UnsupportedModel, "is a GGUF file for big-endian machines"),
        (header(version=1), UnsupportedModel, "is of version 1 of GGUF; known are 2, 3"),
        (
            header(num_tensors=2**60),
            ConfigError,
            f"its header counts {2**60} entries, {MAX_ENTRIES} at most make sense; d",
        ),
        (header(num_keys=2**60), ConfigError, f"its header counts {2**60} entries, {MAX_ENTRIES} at most"),
        (header(num_tensors=MAX_ENTRIES), ConfigError, "is truncated, or its header is damaged"),
        (header(0, 1, struct.pack("<Q", 2**60)), ConfigError, "is truncated, or its header is damaged"),
        (header(0, 1, struct.pack("<Q", 1) + b"\xff"), ConfigError, "has a text that is none before byte 33"),
        (header(0, 1, KEY + struct.pack("<IIQ", 9, 4, 2**60)), ConfigError, f"counts {2**60} entries"),
        (header(0, 1, KEY + struct.pack("<IIQ", 9, 4, 2**20)), ConfigError, "is truncated, or its header is damaged"),
        (header(0, 1, KEY + struct.pack("<IIQ", 9, 9, 1)), ConfigError, "a value of unknown type 9 in its header"),
        (header(0, 1, KEY + struct.pack("<I", 13)), ConfigError, "a value of unknown type 13 in its header"),
        (
            header(1, 0, tensor(16)),
            UnsupportedModel,
            "tensor 't' is of type IQ2_XXS, which is not read: give a file with no other types than F32, F16",
        ),
        (header(1, 0, tensor(99)), UnsupportedModel, "tensor 't' is of type 99, which is not read"),
        (header(1, 0, tensor(12)), ConfigError, "tensor 't' has no whole blocks"),
        (header(1, 0, tensor(offset=7) + bytes(9999)), ConfigError, "tensor 't' is there twice, or out of line"),
        (header(2, 0, tensor() + tensor() + bytes(9999)), ConfigError, "tensor 't' is there twice, or out of line"),
        (header(1, 0, tensor() + bytes(2000)), ConfigError, "is truncated: 2065 bytes do not hold tensor 't'"),
        (header(1, 0, tensor(offset=2**62) + bytes(9999)), ConfigError, "do not hold tensor 't'"),
        (header(1, 0, ENTRY[:9] + struct.pack("<I", 5)), ConfigError, "tensor 't' has 5 dimensions"),
        (header(1, 0, ENTRY[:9] + struct.pack("<IQIQ", 1, 0, 0, 0)), ConfigError, "tensor 't' has no whole blocks"),
        (
            header(0, 1, struct.pack("<Q", 17) + b"general.alignment" + struct.pack("<II", 4, 0)),
            ConfigError,
            "general.alignment 0 is no alignment",
        ),
    ],
)
def test_what_is_no_whole_gguf_file_is_refused(
    content: bytes, error: type[Exception], message: str, tmp_path: Path
) -> None:
    """In one line that names the file, and the tensor if there is one."""
    file = tmp_path / "model.gguf"
    file.write_bytes(content)
    with pytest.raises(error, match=r"^[^\n]*$") as caught:
        read_header(file)
    assert message in str(caught.value)
    assert str(file) in str(caught.value)


@pytest.mark.parametrize("part", [0.001, 0.3, 0.999])
def test_a_truncated_file_is_refused(part: float, file: Path, tmp_path: Path) -> None:
    """Wherever it ends, before anything of it is read but the header."""
    content = file.read_bytes()
    cut = tmp_path / "cut.gguf"
    cut.write_bytes(content[: int(len(content) * part)])
    with pytest.raises(ConfigError, match="is truncated"):
        read_header(cut)


@pytest.mark.slow
def test_a_header_of_nothing_but_strings_takes_little_memory(tmp_path: Path) -> None:
    """As many short ones as may be take 200 MB while they are read."""
    strings = b"".join(struct.pack("<Q", 2) + b"%02x" % (index % 256) for index in range(MAX_ENTRIES // 2))
    array = struct.pack("<IIQ", 9, 8, MAX_ENTRIES // 2) + strings
    file = tmp_path / "model.gguf"
    file.write_bytes(header(0, 3, b"".join(struct.pack("<Q", 1) + key + array for key in (b"a", b"b", b"c"))))
    assert MAX_HEADER_BYTES * 0.9 < file.stat().st_size < MAX_HEADER_BYTES
    code = (
        "import sys, pathlib\n"
        "from peregrine_server.models.loading.gguf_header import read_header\n"
        "read_header(pathlib.Path(sys.argv[1]))\n"
        "print(pathlib.Path('/proc/self/status').read_text().split('VmHWM:')[1].split()[0])"
    )
    found = subprocess.run([sys.executable, "-c", code, str(file)], check=True, capture_output=True, text=True)
    assert int(found.stdout) * 1024 < 200e6


def test_a_file_that_may_not_be_read_is_named(tmp_path: Path) -> None:
    """As any other file."""
    with pytest.raises(ConfigError, match="cannot be read: Is a directory"):
        read_header(tmp_path)
