"""The keys of ZeroMQ's CURVE security (https://rfc.zeromq.org/spec/26/) between the router and shards elsewhere.

One file for all machines of a server holds two key pairs, the router's and the shards': whoever has it can join.
"""

import os
import stat
from pathlib import Path

import msgspec
import zmq

REFUSED_EVENTS = (
    zmq.EVENT_HANDSHAKE_FAILED_AUTH,
    zmq.EVENT_HANDSHAKE_FAILED_PROTOCOL,
    zmq.EVENT_HANDSHAKE_FAILED_NO_DETAIL,
)
"""Events of a socket's monitor, on either end, when the other end has other keys."""


class CurveKeyError(ValueError):
    """The file is no key file, or others can read it; the message is one line that says what to do."""


class KeyPair(msgspec.Struct, frozen=True):
    """A Curve25519 key pair in Z85, 40 characters each."""

    public: str
    secret: str


class CurveKeys(msgspec.Struct, frozen=True):
    """The two ends' keys."""

    router: KeyPair
    shard: KeyPair


def make_keys() -> CurveKeys:
    """Draws both pairs."""
    return CurveKeys(_draw(), _draw())


def write_keys(file: Path) -> None:
    """Writes a new key file that only its owner can read. Raises CurveKeyError if there is a file already."""
    try:
        descriptor = os.open(file, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
    except FileExistsError:
        raise CurveKeyError(f"{file} is there already: remove it, and renew it on every machine") from None
    with os.fdopen(descriptor, "wb") as out:
        out.write(msgspec.json.encode(make_keys()) + b"\n")


def read_keys(file: Path) -> CurveKeys:
    """Reads a key file. Raises CurveKeyError, or OSError if it cannot be read."""
    if file.stat().st_mode & (stat.S_IROTH | stat.S_IWOTH):
        raise CurveKeyError(f"every user can read {file}: chmod 600 it, or make another with `peregrine keys`")
    try:
        keys = msgspec.json.decode(file.read_bytes(), type=CurveKeys)
        for pair in (keys.router, keys.shard):
            if zmq.curve_public(pair.secret.encode()).decode() != pair.public:
                raise ValueError
    except (msgspec.DecodeError, ValueError, zmq.ZMQError):
        raise CurveKeyError(f"{file} holds no keys: make them with `peregrine keys`") from None
    return keys


def _draw() -> KeyPair:
    public, secret = zmq.curve_keypair()
    return KeyPair(public.decode(), secret.decode())
