"""API keys: which are valid, and whose each is. Plain ASGI, so that streams pass unchanged."""

import hashlib
import hmac
import logging
import re
import secrets
from collections.abc import Iterable
from pathlib import Path

from starlette.datastructures import Headers
from starlette.types import ASGIApp, Receive, Scope, Send

from peregrine_router.http.errors import Unauthorized, error_response
from peregrine_router.request import Tenant

PublicPaths = frozenset[tuple[str, str]]
"""(method, path) of routes that need no API key. Every API declares its own."""
_SHA256 = re.compile(r"^[0-9a-fA-F]{64}$")
log = logging.getLogger(__name__)


class ApiKeyStore:
    """SHA-256 digests of the valid API keys. A key file is read again whenever it changes."""

    def __init__(self, keys: Iterable[str], file: Path | None) -> None:
        """Raises OSError or ValueError if the file cannot be read."""
        self._from_settings = [_digest(key) for key in keys]
        self._file = file
        self._from_file: list[bytes] = [] if file is None else _read(file)
        self._version = None if file is None else _version(file)
        self._salt = secrets.token_bytes(32)

    @property
    def is_open(self) -> bool:
        """Whether requests need no key: neither keys nor a file were configured. An empty file admits nobody."""
        return not self._from_settings and self._file is None

    def find(self, key: str) -> str | None:
        """Id of a valid key, from which the key cannot be derived; None if it is invalid. Runs in constant time."""
        self._reload_if_changed()
        given, is_valid = _digest(key), False
        for known in (*self._from_settings, *self._from_file):
            is_valid |= hmac.compare_digest(given, known)
        return given.hex()[:16] if is_valid else None

    def tenant(self, key: str, key_id: str) -> Tenant:
        """The tenant that a valid key identifies. Its cache salt depends on a secret of this process."""
        is_only_key = len({*self._from_settings, *self._from_file}) == 1
        return Tenant("" if is_only_key else key_id, hashlib.sha256(self._salt + _digest(key)).digest())

    def _reload_if_changed(self) -> None:
        if self._file is None:
            return
        try:
            version = _version(self._file)
            if version != self._version:
                self._from_file, self._version = _read(self._file), version
                log.info("API keys read again", extra={"fields": {"keys": len(self._from_file)}})
        except (OSError, ValueError) as error:
            # Half-written or being replaced: the old keys stay valid until it can be read.
            log.warning("the file of API keys cannot be read: %s", error)


class ApiKeys:
    """Middleware that answers 401 to requests without a valid key, except on public paths."""

    def __init__(self, app: ASGIApp, keys: ApiKeyStore, public_paths: PublicPaths) -> None:
        self._app = app
        self._keys = keys
        self._public_paths = public_paths

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Sets `state.key_id` and `state.tenant` and passes the request on, or answers 401."""
        if scope["type"] != "http":
            return await self._app(scope, receive, send)
        scope["state"] |= {"key_id": "", "tenant": Tenant()}
        if not self._keys.is_open and (scope["method"], scope["path"]) not in self._public_paths:
            scheme, _, key = Headers(scope=scope).get("authorization", "").partition(" ")
            key = key.strip()
            key_id = self._keys.find(key) if scheme.lower() == "bearer" else None
            if key_id is None:
                return await error_response(scope["path"], Unauthorized())(scope, receive, send)
            scope["state"] |= {"key_id": key_id, "tenant": self._keys.tenant(key, key_id)}
        await self._app(scope, receive, send)


def _digest(key: str) -> bytes:
    return hashlib.sha256(key.encode("utf-8", "surrogateescape")).digest()


def _read(file: Path) -> list[bytes]:
    """Digests of a file that holds a key or the SHA-256 of one on each line; `#` begins a comment line."""
    lines = [line.strip() for line in file.read_text().splitlines()]
    keys = [line for line in lines if line and not line.startswith("#")]
    return [bytes.fromhex(key) if _SHA256.match(key) else _digest(key) for key in keys]


def _version(file: Path) -> tuple[int, int, int]:
    """(mtime in ns, size, inode): differs whenever the file was written or replaced."""
    status = file.stat()
    return status.st_mtime_ns, status.st_size, status.st_ino
