"""Limits of containers, drawn as trees of files."""

import os
from pathlib import Path

import psutil
import pytest

from peregrine_server.container import available_memory, num_cpus

GIB = 2**30
HERE = "proc/self/cgroup"


def draw(root: Path, files: dict[str, str]) -> Path:
    """Writes files below a root; those of cgroups are named from /sys/fs/cgroup."""
    for name, content in files.items():
        file = root / name if name == HERE else root / "sys/fs/cgroup" / name
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_text(content + "\n")
    return root


@pytest.fixture(autouse=True)
def _large_machine(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(os, "sched_getaffinity", lambda _: set(range(64)))
    memory = psutil.virtual_memory()._replace(available=100 * GIB)
    monkeypatch.setattr(psutil, "virtual_memory", lambda: memory)


V1, V2 = "3:cpu,cpuacct:/docker/abc\n2:memory:/docker/abc", "0::/"
CPUS = {
    "no file at all": ({}, 64),
    "version 2": ({HERE: V2, "cpu.max": "200000 100000"}, 2),
    "version 2 without a limit": ({HERE: V2, "cpu.max": "max 100000"}, 64),
    "one and a half": ({HERE: V2, "cpu.max": "150000 100000"}, 1),
    "three and nine tenths": ({HERE: V2, "cpu.max": "390000 100000"}, 3),
    "a tenth": ({HERE: V2, "cpu.max": "10000 100000"}, 1),
    "more than there are": ({HERE: V2, "cpu.max": "99900000 100000"}, 64),
    "a group above": ({HERE: "0::/pod/box", "pod/cpu.max": "300000 100000", "pod/box/cpu.max": "max 100000"}, 3),
    "version 1": (
        {
            HERE: V1,
            "cpu,cpuacct/docker/abc/cpu.cfs_quota_us": "400000",
            "cpu,cpuacct/docker/abc/cpu.cfs_period_us": "100000",
        },
        4,
    ),
    "version 1 seen from inside": ({HERE: V1, "cpu/cpu.cfs_quota_us": "250000", "cpu/cpu.cfs_period_us": "50000"}, 5),
    "version 1 without a limit": ({HERE: V1, "cpu/cpu.cfs_quota_us": "-1", "cpu/cpu.cfs_period_us": "100000"}, 64),
    "version 2 beside version 1": ({HERE: "1:name=systemd:/\n0::/", "unified/cpu.max": "700000 100000"}, 7),
    "nonsense": ({HERE: "x\n::\n0::/../..", "cpu.max": "many few", "cpu/cpu.cfs_period_us": "0"}, 64),
    "an empty file": ({HERE: V2, "cpu.max": ""}, 64),
}


@pytest.mark.parametrize(("files", "cpus"), CPUS.values(), ids=CPUS.keys())
def test_threads_are_as_many_as_the_quota_has_whole_cpus(files: dict[str, str], cpus: int, tmp_path: Path) -> None:
    """The quota of a container, of either version of cgroups, counts beside the CPUs that the process may run on."""
    assert num_cpus(draw(tmp_path, files)) == cpus


V1_MEMORY = "memory/memory.limit_in_bytes", "memory/memory.usage_in_bytes", "memory/memory.stat"
MEMORY = {
    "no file at all": ({}, 100),
    "version 2": ({HERE: V2, "memory.max": str(8 * GIB), "memory.current": str(2 * GIB)}, 6),
    "cached files": (
        {
            HERE: V2,
            "memory.max": str(8 * GIB),
            "memory.current": str(7 * GIB),
            "memory.stat": f"anon 5\ninactive_file {5 * GIB}\nactive_file 7",
        },
        6,
    ),
    "throttled before it is full": (
        {HERE: V2, "memory.max": "max", "memory.high": str(4 * GIB), "memory.current": str(GIB)},
        3,
    ),
    "without a limit": ({HERE: V2, "memory.max": "max", "memory.current": str(GIB)}, 100),
    "version 1": (dict(zip((HERE, *V1_MEMORY[:2]), (V1, str(5 * GIB), str(GIB)), strict=True)), 4),
    "version 1 without a limit": (dict(zip((HERE, V1_MEMORY[0]), (V1, "9223372036854771712"), strict=True)), 100),
    "full": ({HERE: V2, "memory.max": str(GIB), "memory.current": str(2 * GIB)}, 0),
}


@pytest.mark.parametrize(("files", "gib"), MEMORY.values(), ids=MEMORY.keys())
def test_memory_is_what_the_container_has_left(files: dict[str, str], gib: int, tmp_path: Path) -> None:
    """A limit counts less what is used, but for cached files, which the kernel drops before it kills."""
    assert available_memory(draw(tmp_path, files)) == gib * GIB


def test_this_machine_is_read() -> None:
    """The real files are read without an error, and leave something to use."""
    assert num_cpus() >= 1
    assert available_memory() > 0
