"""Who may call: API keys. What every answer carries: `x-request-id`. Plain ASGI, so that streams pass untouched."""

import hashlib
import hmac
import logging
import re
import secrets
import uuid
from collections.abc import Iterable
from pathlib import Path

from starlette.datastructures import Headers, MutableHeaders
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from peregrine_router.http.errors import Unauthorized, error_response
from peregrine_router.request import Tenant

REQUEST_ID = "x-request-id"
MAX_REQUEST_ID_LENGTH = 128
PublicPaths = frozenset[tuple[str, str]]
"""(method, path) of routes that need no API key. Every API declares its own."""
_UNSAFE = re.compile(r"[^A-Za-z0-9._:-]")
_SHA256 = re.compile(r"^[0-9a-fA-F]{64}$")
log = logging.getLogger(__name__)


class ApiKeyStore:
    """The API keys, as hashes. Those of a file are read again whenever it changes."""

    def __init__(self, keys: Iterable[str], file: Path | None) -> None:
        """Raises OSError if the file cannot be read."""
        self._fixed = [_hash(key) for key in keys]
        self._file = file
        self._read: list[bytes] = [] if file is None else _read(file)
        self._changed_at = None if file is None else _modified(file)
        self._salt = secrets.token_bytes(32)

    @property
    def is_open(self) -> bool:
        """Whether anybody may call: no key was ever set. An empty file keeps everybody out."""
        return not self._fixed and self._file is None

    def find(self, key: str) -> str | None:
        """A name for the key, which does not tell it; None if it is not one of ours. The time tells nothing either."""
        self._refresh()
        given, found = _hash(key), False
        for known in (*self._fixed, *self._read):
            found |= hmac.compare_digest(given, known)
        return given.hex()[:16] if found else None

    def tenant(self, key: str, name: str) -> Tenant:
        """Whose key it is, of that name. The salt cannot be told from the key without this process's own secret."""
        is_alone = len({*self._fixed, *self._read}) == 1
        return Tenant("" if is_alone else name, hashlib.sha256(self._salt + _hash(key)).digest())

    def _refresh(self) -> None:
        if self._file is None:
            return
        try:
            changed_at = _modified(self._file)
            if changed_at != self._changed_at:
                self._read, self._changed_at = _read(self._file), changed_at
                log.info("API keys read again", extra={"fields": {"keys": len(self._read)}})
        except (OSError, ValueError) as error:
            # Half-written or being replaced: the old keys stay until it can be read.
            log.warning("the file of API keys cannot be read: %s", error)


class ApiKeys:
    """Answers 401 to requests without a valid key, except on public paths."""

    def __init__(self, app: ASGIApp, keys: ApiKeyStore, public_paths: PublicPaths) -> None:
        self._app = app
        self._keys = keys
        self._public_paths = public_paths

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Lets the request through, or not."""
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


class RequestIds:
    """Names every request, by the client's `x-request-id` as far as that is harmless, and says so in every answer."""

    def __init__(self, app: ASGIApp) -> None:
        self._app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Passes everything on."""
        if scope["type"] != "http":
            return await self._app(scope, receive, send)
        request_id = clean_request_id(Headers(scope=scope).get(REQUEST_ID, ""))
        state = scope.setdefault("state", {})
        state["request_id"] = request_id
        # Streams write body chunks through this `send` directly: none of the five middlewares changes a body chunk, and
        # passing each chunk through them costs as much as encoding it.
        state["send_chunk"] = send

        async def send_named(message: Message) -> None:
            if message["type"] == "http.response.start":
                MutableHeaders(scope=message)[REQUEST_ID] = request_id
            await send(message)

        await self._app(scope, receive, send_named)


def clean_request_id(given: str) -> str:
    """What is left of a client's id: letters, digits and `._:-`, so many at most; a new one if that is nothing."""
    return _UNSAFE.sub("", given)[:MAX_REQUEST_ID_LENGTH] or uuid.uuid4().hex


def _hash(key: str) -> bytes:
    return hashlib.sha256(key.encode("utf-8", "surrogateescape")).digest()


def _read(file: Path) -> list[bytes]:
    lines = [line.strip() for line in file.read_text().splitlines()]
    keys = [line for line in lines if line and not line.startswith("#")]
    return [bytes.fromhex(key) if _SHA256.match(key) else _hash(key) for key in keys]


def _modified(file: Path) -> tuple[int, int, int]:
    status = file.stat()
    return status.st_mtime_ns, status.st_size, status.st_ino
