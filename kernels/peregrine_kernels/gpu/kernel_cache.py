"""Triton's cache in two folders: one with kernels compiled ahead of time, read-only, and one for all others.

The CUDA image names it in TRITON_CACHE_MANAGER. Triton's own manager writes where it reads.
"""

from pathlib import Path

from triton import knobs
from triton.runtime.cache import FileCacheManager


class KernelCache(FileCacheManager):
    """One entry, by its key: in TRITON_CACHE_DIR if it is there, else where Triton keeps its cache by default."""

    def __init__(self, key: str, override: bool = False, dump: bool = False) -> None:
        if override or dump or Path(knobs.cache.dir, key).is_dir():
            super().__init__(key, override, dump)
            return
        folder = Path(knobs.cache.get_triton_dir("cache"), key)
        folder.mkdir(parents=True, exist_ok=True)
        self.key = key
        self.cache_dir = str(folder)
        self.lock_path = str(folder / "lock")
