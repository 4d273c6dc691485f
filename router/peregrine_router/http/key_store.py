"""The valid API keys as digests, and what each may do. A file of keys is read again whenever it changes."""

import hashlib
import logging
import re
import secrets
import time
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

from peregrine_router.request import Tenant

INFER, METRICS, ADMIN = "infer", "metrics", "admin"
SCOPES = frozenset({INFER, METRICS, ADMIN})
"""`infer`: every route but /metrics. `metrics`: /metrics. `admin`: cancels requests of other keys."""
DEFAULT_SCOPES = frozenset({INFER, METRICS})
"""Scopes of a key that names none: everything but power over other keys' requests."""
RETRY_SECONDS = 1.0
"""Interval at which a file that cannot be read is tried again."""
_SHA256 = re.compile(r"[0-9a-fA-F]{64}")
log = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class ApiKey:
    """A valid key, from which the key itself cannot be derived."""

    id: str
    tenant: Tenant
    """Its cache salt depends on a secret of this process."""
    scopes: frozenset[str]


class ApiKeyStore:
    """SHA-256 digests of the valid API keys, each with its scopes."""

    def __init__(self, keys: Iterable[str], file: Path | None) -> None:
        """Raises OSError or ValueError if the file cannot be read."""
        self._from_settings = {_digest(key): DEFAULT_SCOPES for key in keys}
        self._file = file
        self._version = None if file is None else _version(file)
        self._salt = secrets.token_bytes(32)
        self._is_unreadable = False
        self._retry_at = 0.0
        self._set(_read(file) if file is not None else {})

    @property
    def is_open(self) -> bool:
        """Whether requests need no key: neither keys nor a file were configured. An empty file admits nobody."""
        return not self._from_settings and self._file is None

    def find(self, key: str) -> ApiKey | None:
        """A valid key; None if it is invalid. Takes as long with 50,000 keys as with one.

        The time depends on the digest alone, and on no key: a dictionary compares digests in full only if their
        hashes, which Python salts, are equal.
        """
        self._reload_if_changed()
        digest = _digest(key)
        scopes = self._scopes.get(digest)
        if scopes is None:
            return None
        id = digest.hex()[:16]
        salt = hashlib.sha256(self._salt + digest).digest()
        return ApiKey(id, Tenant("" if len(self._scopes) == 1 else id, salt), scopes)

    def _set(self, from_file: dict[bytes, frozenset[str]]) -> None:
        self._scopes = {**self._from_settings, **from_file}
        """By digest. A line of the file wins over the same key in the settings: it says more."""

    def _reload_if_changed(self) -> None:
        if self._file is None or time.monotonic() < self._retry_at:
            return
        try:
            version = _version(self._file)
            if version != self._version:
                self._set(_read(self._file))
                self._version = version
                log.info("API keys read again", extra={"fields": {"keys": len(self._scopes)}})
            self._is_unreadable = False
        except (OSError, ValueError) as error:
            self._keep_keys(error)

    def _keep_keys(self, error: Exception) -> None:
        """Half-written or being replaced: the old keys stay valid until the file can be read."""
        self._retry_at = time.monotonic() + RETRY_SECONDS
        if not self._is_unreadable:
            self._is_unreadable = True
            log.warning("the file of API keys cannot be read, the keys stay as they were: %s", error)


def _digest(key: str) -> bytes:
    return hashlib.sha256(key.encode("utf-8", "surrogateescape")).digest()


def _read(file: Path) -> dict[bytes, frozenset[str]]:
    """Digest -> scopes, of a file whose lines hold a key, or the SHA-256 of one, and perhaps its scopes.

    `#` begins a comment line. Raises OSError or ValueError, whose message shows no key.
    """
    scopes: dict[bytes, frozenset[str]] = {}
    for number, line in enumerate(file.read_text().splitlines(), 1):
        key, *names = line.split() or ("#",)
        if key[0] != "#":
            digest = bytes.fromhex(key) if _SHA256.fullmatch(key) else _digest(key)
            scopes[digest] = _parse_scopes(names, f"{file}, line {number}") if names else DEFAULT_SCOPES
    return scopes


def _parse_scopes(words: list[str], where: str) -> frozenset[str]:
    scopes = frozenset(filter(None, ",".join(words).split(",")))
    if not scopes or not scopes <= SCOPES:
        known = ", ".join(sorted(SCOPES))
        raise ValueError(f"{where}: behind a key, which has no spaces, stand its scopes, of {known}")
    return scopes


def _version(file: Path) -> tuple[int, int, int, int]:
    """(mtime and ctime in ns, size, inode): differs whenever the file was written, replaced or made readable."""
    status = file.stat()
    return status.st_mtime_ns, status.st_ctime_ns, status.st_size, status.st_ino
