"""The CPUs and the memory that this process may use, by its container's limits (Linux cgroups, versions 1 and 2).

Functions take the root of the file system, so that tests can draw one.
"""

import os
from collections.abc import Iterator
from pathlib import Path

import psutil

ROOT = Path("/")
_MOUNTS = {"cpu": ("cpu", "cpu,cpuacct"), "memory": ("memory",)}
"""Controller of version 1 -> the folders of /sys/fs/cgroup where it may be mounted."""
_UNIFIED = ("", "unified")
"""The same of version 2, alone and beside version 1."""


def num_cpus(root: Path = ROOT) -> int:
    """Threads that can run all the time: the CPUs of this process, but no more than its quota has whole ones.

    A thread more would use up the quota early in each period, and all threads would then wait for the next one.
    """
    return max(1, min([len(os.sched_getaffinity(0)), *map(int, _cpu_quotas(root))]))


def available_memory(root: Path = ROOT) -> int:
    """Bytes that this process can still take: those of the machine, or of its container if that has fewer."""
    return max(0, min([psutil.virtual_memory().available, *_free_bytes(root)]))


def _cpu_quotas(root: Path) -> Iterator[float]:
    """The quota of every group that this process is in, in CPUs."""
    for folder in _groups(root, "cpu"):
        quota, period = [*_read(folder / "cpu.max").split(), "", ""][:2]
        if not quota:
            quota, period = _read(folder / "cpu.cfs_quota_us"), _read(folder / "cpu.cfs_period_us")
        if quota.isdecimal() and period.isdecimal() and int(period):
            yield int(quota) / int(period)


def _free_bytes(root: Path) -> Iterator[int]:
    """The bytes left in every group that this process is in."""
    for folder in _groups(root, "memory"):
        for limit_name, used_name, cache_name in (
            ("memory.max", "memory.current", "inactive_file"),
            ("memory.high", "memory.current", "inactive_file"),
            ("memory.limit_in_bytes", "memory.usage_in_bytes", "total_inactive_file"),
        ):
            limit, used = _read(folder / limit_name), _read(folder / used_name)
            if limit.isdecimal() and used.isdecimal():
                # The kernel drops the files that it caches before it kills anybody.
                yield int(limit) - int(used) + _statistic(folder / "memory.stat", cache_name)


def _groups(root: Path, controller: str) -> Iterator[Path]:
    """The folders of this process's group and those above it, whose limits hold as well.

    In a container the path may be that of the host, of which the container sees the last folder as its root.
    """
    for line in _read(root / "proc/self/cgroup").splitlines():
        _, controllers, path = [*line.split(":", 2), "", ""][:3]
        if controllers and controller not in controllers.split(","):
            continue
        for mount in _MOUNTS[controller] if controllers else _UNIFIED:
            top = root / "sys/fs/cgroup" / mount
            folder = Path(os.path.normpath(f"{top}/{path}"))
            yield from (each for each in (folder, *folder.parents) if each.is_relative_to(top))


def _statistic(file: Path, name: str) -> int:
    values = dict(line.split(maxsplit=1) for line in _read(file).splitlines() if " " in line)
    return int(values[name]) if values.get(name, "").isdecimal() else 0


def _read(file: Path) -> str:
    """The content of a file; empty if it cannot be read."""
    try:
        return file.read_text().strip()
    except (OSError, ValueError):
        return ""
