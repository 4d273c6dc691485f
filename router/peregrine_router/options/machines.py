"""Options: shards on several machines."""

from pydantic_settings import BaseSettings

from peregrine_router.options.declaration import option


class MachinesOptions(BaseSettings):
    """Shards on several machines."""

    shard_address: str | None = option(
        None,
        "SHARD_ADDRESS",
        "Where shards on other machines join (`peregrine shard`); HOST is an address or interface of this machine.",
        metavar="tcp://HOST:PORT",
        min_length=1,
    )
    shard_keys: str | None = option(
        None,
        "SHARD_KEYS",
        "File of the keys by which they join, made by `peregrine keys`.",
        metavar="FILE",
        min_length=1,
    )
    local_shards: int | None = option(
        None,
        "LOCAL_SHARDS",
        "Shards of this machine, the first ranks. Not set, with a shard address: the visible GPUs, 1 on a CPU.",
        ge=0,
    )
