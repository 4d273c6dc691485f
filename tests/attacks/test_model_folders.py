"""Model folders that are damaged, or made to harm: each loads, or is refused in one line, and none takes a gigabyte."""

import json
import os
import selectors
import shutil
import struct
import subprocess
import sys
import tempfile
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from serving import write_model

pytestmark = pytest.mark.slow

EXAMPLES = int(os.environ.get("PEREGRINE_FOLDER_EXAMPLES", "200"))
LOAD_SECONDS = 60.0
Json = Any
"""Anything that JSON can hold, and numbers that it cannot."""
Damage = Callable[[Path], None]

SIZES = (0, 1, -1, 2, 3, 5, 7, 64, 255, 256, 257, 4096, 2**16, 2**24, 2**24 + 1, 2**31, 2**63, 2**70)
FRACTIONS = (0.0, 0.5, -0.5, 1e-320, 1e-5, 1e30, 1e308, float("nan"), float("inf"), -float("inf"))
numbers: st.SearchStrategy[Json] = st.sampled_from((*SIZES, *FRACTIONS))
values: st.SearchStrategy[Json] = st.one_of(
    numbers,
    st.sampled_from([None, True, False, "", "x", "gelu", "\0", "float16", "../x", [], {}, [None], {"a": 1}, [[[]]]]),
    st.lists(numbers, max_size=3),
)
# fmt: off
CONFIG = (
    "vocab_size", "hidden_size", "num_hidden_layers", "num_attention_heads", "num_kv_heads",
    "ffn_hidden_size", "max_position_embeddings", "layer_norm_epsilon", "rope_theta", "rope_scaling",
    "rope_parameters", "alibi", "bias", "parallel_attn", "multi_query", "activation", "torch_dtype",
    "new_decoder_architecture", "eos_token_id", "num_ln_in_parallel_attn", "tie_word_embeddings",
    "model_type", "architectures", "quantization_config",
)
# fmt: on
TOKENS = ("eos_token", "bos_token", "additional_special_tokens", "added_tokens_decoder", "chat_template")
# fmt: off
FILES = (
    "config.json", "generation_config.json", "tokenizer.json", "tokenizer_config.json", "model.safetensors",
    "special_tokens_map.json", "added_tokens.json", "chat_template.jinja", "chat_template.json",
    "model.safetensors.index.json", "pytorch_model.bin", "pytorch_model.bin.index.json",
)
# fmt: on
TARGETS = ("/dev/zero", "/dev/urandom", "/nowhere", ".", "config.json", "/dev/null", "/proc/self/mem")


def edit(path: Path, file: str, change: Callable[[Json], None]) -> None:
    """Changes the JSON of a file, if there is any."""
    try:
        content = json.loads((path / file).read_text())
    except (OSError, ValueError, RecursionError):
        content = {}
    if isinstance(content, dict):
        change(content)
    if not (path / file).is_symlink():
        (path / file).write_text(json.dumps(content))


def set_field(file: str, name: str, value: Json) -> Damage:
    return lambda path: edit(path, file, lambda content: content.__setitem__(name, value))


def set_tokens(ids: list[Json]) -> Damage:
    """Ids of added tokens in tokenizer_config.json."""
    tokens = {str(id): {"content": f"<{at}>", "special": True} for at, id in enumerate(ids)}
    return set_field("tokenizer_config.json", "added_tokens_decoder", tokens)


def set_vocabulary(id: Json) -> Damage:
    """The id of a word, and that of an added token, in tokenizer.json."""

    def change(content: Json) -> None:
        content.get("model", {}).get("vocab", {})["a"] = id
        flags = dict.fromkeys(("single_word", "lstrip", "rstrip", "normalized"), False)
        content["added_tokens"] = [{"id": id, "content": "<x>", "special": True, **flags}]

    return lambda path: edit(path, "tokenizer.json", change)


def set_tensor(index: int, field: str, value: Json) -> Damage:
    """A field of a tensor in the header of model.safetensors."""

    def damage(path: Path) -> None:
        file = path / "model.safetensors"
        if file.is_symlink() or not file.is_file():
            return
        data = file.read_bytes()
        length = struct.unpack("<Q", data[:8])[0] if len(data) >= 8 else len(data)
        if length > len(data):
            return
        try:
            header = json.loads(data[8 : 8 + length])
            names = [name for name in header if name != "__metadata__"]
            header[names[index % len(names)]][field] = value
        except (ValueError, TypeError, ZeroDivisionError):
            return  # Damaged already.
        encoded = json.dumps(header).encode()
        file.write_bytes(struct.pack("<Q", len(encoded)) + encoded + data[8 + length :])

    return damage


def write(file: str, content: bytes) -> Damage:
    def damage(path: Path) -> None:
        (path / file).unlink(missing_ok=True)
        (path / file).write_bytes(content)

    return damage


def cut(file: str, part: float) -> Damage:
    def damage(path: Path) -> None:
        if (path / file).is_file() and not (path / file).is_symlink():
            data = (path / file).read_bytes()
            (path / file).write_bytes(data[: int(part * len(data))])

    return damage


def link(file: str, target: str) -> Damage:
    def damage(path: Path) -> None:
        (path / file).unlink(missing_ok=True)
        (path / file).symlink_to(target)

    return damage


def make_fifo(file: str) -> Damage:
    def damage(path: Path) -> None:
        (path / file).unlink(missing_ok=True)
        os.mkfifo(path / file)

    return damage


damages: st.SearchStrategy[Damage] = st.one_of(
    st.builds(set_field, st.just("config.json"), st.sampled_from(CONFIG), values),
    st.builds(set_field, st.just("config.json"), st.sampled_from(CONFIG), values),
    st.builds(set_field, st.just("generation_config.json"), st.just("eos_token_id"), values),
    st.builds(set_field, st.just("tokenizer_config.json"), st.sampled_from(TOKENS), values),
    st.builds(set_tokens, st.lists(numbers, max_size=3)),
    st.builds(set_vocabulary, numbers),
    st.builds(set_tensor, st.integers(0, 40), st.sampled_from(["dtype", "shape", "data_offsets"]), values),
    st.builds(
        set_tensor,
        st.integers(0, 40),
        st.sampled_from(["shape", "data_offsets"]),
        st.lists(numbers, min_size=2, max_size=2),
    ),
    st.builds(
        write, st.sampled_from(FILES), st.one_of(st.binary(max_size=64), st.sampled_from([b"{}", b"[]", b"null"]))
    ),
    st.builds(write, st.sampled_from(FILES), st.sampled_from([b"[" * 100_000, b'{"a":' * 100_000, b"1" * 5000])),
    st.builds(
        write,
        st.just("model.safetensors.index.json"),
        st.builds(lambda v: json.dumps({"weight_map": v}).encode(), values),
    ),
    st.builds(cut, st.sampled_from(FILES), st.floats(0, 1)),
    st.builds(link, st.sampled_from(FILES), st.sampled_from(TARGETS)),
    st.builds(make_fifo, st.sampled_from(FILES)),
)


class Loader:
    """The process that loads folders, started again whenever it has died."""

    def __init__(self) -> None:
        self._process: subprocess.Popen[str] | None = None

    def load(self, path: Path) -> dict[str, Any]:
        """Answer to a folder. Fails if there is none, or none in time."""
        process = self._process = self._process or self._start()
        assert process.stdin is not None
        assert process.stdout is not None
        process.stdin.write(f"{path}\n")
        process.stdin.flush()
        with selectors.DefaultSelector() as selector:
            selector.register(process.stdout, selectors.EVENT_READ)
            is_answered = bool(selector.select(LOAD_SECONDS))
        line = process.stdout.readline() if is_answered else ""
        if not line:
            self.stop()
        assert is_answered, "the load hangs"
        assert line, "the process died"
        answer: dict[str, Any] = json.loads(line)
        return answer

    def stop(self) -> None:
        """Ends the process."""
        if self._process is not None:
            self._process.kill()
            self._process.communicate()
            self._process = None

    def _start(self) -> "subprocess.Popen[str]":
        command = [sys.executable, str(Path(__file__).with_name("folder_process.py"))]
        return subprocess.Popen(
            command,
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
            env={**os.environ, "PYTHONPATH": os.pathsep.join(sys.path)},
        )


@pytest.fixture(scope="module")
def loader() -> Iterator[Loader]:
    loader = Loader()
    yield loader
    loader.stop()


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_model(tmp_path_factory.mktemp("whole"))


def test_a_whole_folder_loads(loader: Loader, model: Path) -> None:
    """Without any damage the answer is tokens, so that the test below tests something."""
    assert len(loader.load(model)["ok"]) == 4


@settings(
    max_examples=EXAMPLES, deadline=None, suppress_health_check=list(HealthCheck), database=None, derandomize=True
)
@given(damage=st.lists(damages, min_size=1, max_size=3))
def test_any_folder_loads_or_is_refused_in_one_line(loader: Loader, model: Path, damage: list[Damage]) -> None:
    """Sizes, ids, dtypes, offsets, indices, links and files that never end: a model, or one line; no crash, no hang."""
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "model"
        shutil.copytree(model, path)
        for each in damage:
            each(path)
        answer = loader.load(path)
        assert "ok" in answer or (answer["error"] and "\n" not in answer["error"]), answer
