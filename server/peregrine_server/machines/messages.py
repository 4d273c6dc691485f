"""The messages of a shard that joins over TCP, before those of `protocol`.

A shard sends `Join` and is answered `Welcome` or `Refused`; behind a `Welcome`, the connection has the messages of
`protocol`. A second connection has a `Beat` every BEAT_SECONDS. All are maps, not arrays, so that another version can
read the version in them.
"""

import hashlib
from importlib.metadata import version
from pathlib import Path

import msgspec

from peregrine_server import protocol
from peregrine_server.protocol import ShardConfig


class Join(msgspec.Struct, frozen=True, tag="join"):
    """A shard asks for its configuration."""

    rank: int
    num_shards: int
    version: str
    """`our_version()` of the shard."""
    address: str = ""
    """IP address of the shard's machine on the network of the collectives."""
    store_port: int = 0
    """Rank 0: port at which it will serve torch.distributed's store."""


class ModelSource(msgspec.Struct, frozen=True):
    """The model as the router was told to serve it; each machine finds its files itself."""

    model_id: str | None
    revision: str | None
    """The commit that the router has loaded, if it came from the hub."""
    config_sha256: str
    """Digest of config.json: another model, or another state of it, is refused."""


class Welcome(msgspec.Struct, frozen=True, tag="welcome"):
    """All shards are there. The paths of `config` are the router's: `model` says what to load."""

    config: ShardConfig
    model: ModelSource


class Refused(msgspec.Struct, frozen=True, tag="refused"):
    """The shard cannot join; one line says why."""

    reason: str


class Beat(msgspec.Struct, frozen=True, tag="beat"):
    """The shard's process lives."""

    rank: int


decode_join = msgspec.msgpack.Decoder(Join | Beat).decode
decode_answer = msgspec.msgpack.Decoder(Welcome | Refused).decode


def our_version() -> str:
    """The package's version and a digest of the shard messages' definition, which a development version may change."""
    digest = hashlib.sha256(Path(protocol.__file__).read_bytes()).hexdigest()[:8]
    return f"{version('peregrine')}+{digest}"


def config_sha256(model: Path) -> str:
    """Digest of the model's config.json, in hex."""
    return hashlib.sha256((model / "config.json").read_bytes()).hexdigest()
