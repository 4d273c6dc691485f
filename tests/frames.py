"""Damage to the messages between router and shards, drawn by hypothesis: bytes, fields, numbers, lengths, nesting."""

import os
import resource
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import msgspec
from hypothesis import HealthCheck, Phase, given, seed, settings
from hypothesis import strategies as st

from peregrine_server.protocol import (
    CacheSpec,
    Failed,
    Fork,
    Grammar,
    Loading,
    NewSequence,
    Ready,
    SamplingParams,
    Shutdown,
    Step,
    StepResult,
    encode,
    pack,
)

SECONDS = float(os.environ.get("PEREGRINE_FUZZ_SECONDS", "7"))
"""Time of each fuzzer."""
CHUNK = 100
"""Examples between two looks at the clock."""
Damage = Callable[[bytes], list[bytes]]
"""A frame -> the frames in its place, at least one."""

NUMBERS = (
    0,
    1,
    -1,
    2,
    3,
    7,
    8,
    15,
    16,
    17,
    96,
    97,
    191,
    192,
    255,
    256,
    2**15,
    2**31 - 1,
    -(2**31),
    2**32,
    2**63,
    2**64 - 1,
)
numbers = st.one_of(st.sampled_from(NUMBERS), st.integers(-(2**63), 2**64 - 1))
int32 = st.one_of(
    st.sampled_from([n for n in NUMBERS if -(2**31) <= n < 2**31]),
    st.integers(-300, 300),
    st.integers(-(2**31), 2**31 - 1),
)
packed = st.lists(int32, max_size=20).map(pack)
values: st.SearchStrategy[Any] = st.one_of(
    numbers,
    packed,
    st.sampled_from([None, True, "", "x", b"", b"\0", 0.5, float("nan"), float("inf"), -1e308, [], {}, [[]], {"a": 1}]),
    st.lists(numbers, max_size=3),
    st.integers(0, 5000).map(bytes),
)
MESSAGES = (
    Step(1),
    Shutdown(),
    Step(1, slots=pack([0]), num_decodes=1),
    Step(1, new=[NewSequence(0, pack([1, 2]), 2, SamplingParams())], slots=pack([0]), num_tokens=pack([2])),
    Step(1, new=[NewSequence(0, pack([1]), 1, SamplingParams(grammar=Grammar("regex", "(" * 99)))]),
    Step(1, forks=[Fork(1, 0, SamplingParams())]),
    StepResult(1, b"", b"", b""),
    Loading(0, 2**63, -1),
    Ready(0, "cpu", "float32", 1, 192, 8, CacheSpec(64), "AMX"),
    Failed(0, "no\nway"),
    Failed(7, "no way"),
)


def replaced_leaf(at: int, value: Any) -> Damage:
    """Another value in a field, however deep."""
    return changed_leaf(at, lambda _: value)


def other_value(at: int, number: int, fraction: float, data: bytes) -> Damage:
    """Another value of the same type in a field."""

    def change(leaf: Any) -> Any:
        others: dict[type, Any] = {bool: not leaf, int: number, float: fraction, bytes: data, str: str(number)}
        return others.get(type(leaf), [])

    return changed_leaf(at, change)


def resized_leaf(at: int, by: int) -> Damage:
    """More or fewer bytes in a field; another number in one that has none."""

    def resize(leaf: Any) -> Any:
        if isinstance(leaf, bytes):
            return leaf[:by] if by < 0 else leaf + bytes(by)
        return by

    return changed_leaf(at, resize)


def changed_number(at: int, index: int, value: int) -> Damage:
    """Another int32 among those of a field."""

    def change(leaf: Any) -> Any:
        if not isinstance(leaf, bytes) or len(leaf) < 4:
            return value
        start = 4 * (index % (len(leaf) // 4))
        return leaf[:start] + pack([value]) + leaf[start + 4 :]

    return changed_leaf(at, change)


def nested_leaf(at: int, depth: int) -> Damage:
    """Lists in lists in place of a field."""

    def damage(frame: bytes) -> list[bytes]:
        tag = "\u2603nested"
        marked = changed_leaf(at, lambda _: tag)(frame)[0]
        return [marked.replace(msgspec.msgpack.encode(tag), b"\x91" * depth + b"\xc0")]

    return damage


def changed_leaf(at: int, change: Callable[[Any], Any]) -> Damage:
    def damage(frame: bytes) -> list[bytes]:
        message = msgspec.msgpack.decode(frame)
        leaves = list(_leaves(message))
        parent, key = leaves[at % len(leaves)]
        parent[key] = change(parent[key])
        return [msgspec.msgpack.encode(message)]

    return damage


def _leaves(value: list[Any]) -> Iterator[tuple[list[Any], int]]:
    for index, each in enumerate(value):
        yield value, index
        if isinstance(each, list):
            yield from _leaves(each)


def cut(part: float) -> Damage:
    return lambda frame: [frame[: int(part * len(frame))]]


def overwritten(at: int, data: bytes) -> Damage:
    """Other bytes somewhere."""

    def damage(frame: bytes) -> list[bytes]:
        start = at % len(frame)
        return [frame[:start] + data + frame[start + len(data) :]]

    return damage


def inserted(at: int, data: bytes) -> Damage:
    return lambda frame: [frame[: at % len(frame)] + data + frame[at % len(frame) :]]


def repeated(times: int) -> Damage:
    return lambda frame: [frame] * times


def replaced_by(frames: list[bytes]) -> Damage:
    return lambda _: frames


def behind(frames: list[bytes]) -> Damage:
    return lambda frame: [frame, *frames]


_places = st.integers(0, 2000)
_messages = st.lists(st.sampled_from(MESSAGES).map(encode), min_size=1, max_size=3)
_other_values = st.builds(
    other_value, _places, st.one_of(int32, numbers), st.floats(width=32), st.one_of(packed, st.binary(max_size=40))
)
damages: st.SearchStrategy[Damage] = st.one_of(
    _other_values,
    _other_values,
    _other_values,
    st.builds(replaced_leaf, _places, values),
    st.builds(changed_number, _places, st.integers(0, 100), int32),
    st.builds(changed_number, _places, st.integers(0, 100), int32),
    st.builds(resized_leaf, _places, st.integers(-9, 5000)),
    st.builds(nested_leaf, _places, st.sampled_from([1, 2, 100, 1000, 100_000])),
    st.builds(cut, st.floats(0, 1)),
    st.builds(overwritten, _places, st.binary(min_size=1, max_size=8)),
    st.builds(inserted, _places, st.binary(min_size=1, max_size=8)),
    st.builds(repeated, st.sampled_from([2, 3, 50])),
    st.builds(replaced_by, _messages),
    st.builds(behind, _messages),
    st.binary(max_size=200).map(lambda data: replaced_by([data])),
)


def fuzz(strategy: st.SearchStrategy[Any], check: Callable[[Any], None]) -> int:
    """Checks examples for SECONDS, the same in every run as far as it comes. Returns their number."""
    end, chunk, count = time.monotonic() + SECONDS, 0, 0

    while time.monotonic() < end:

        @seed(chunk)
        @settings(
            max_examples=CHUNK,
            deadline=None,
            database=None,
            phases=[Phase.generate, Phase.shrink],
            suppress_health_check=list(HealthCheck),
        )
        @given(strategy)
        def run(example: Any) -> None:
            nonlocal count
            count += 1
            check(example)

        run()
        chunk += 1
    return count


def memory() -> int:
    """Resident bytes of this process."""
    return int(Path("/proc/self/statm").read_text().split()[1]) * resource.getpagesize()
