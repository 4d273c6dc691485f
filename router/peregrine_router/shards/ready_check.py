"""Whether a shard's `Ready` can be true: the scheduler is sized by it."""

from peregrine_server.protocol import Ready, ShardConfig

DEVICES = ("cpu", "cuda")
MAX_BYTES = 2**50
"""Upper bound on a device's memory."""
MAX_SECONDS = 1e6
"""Upper bound on the time of a load."""


class WrongReady(ValueError):
    """A shard reports what it cannot have; the message is one line for the operator."""


def check_ready(ready: Ready, config: ShardConfig) -> None:
    """Raises WrongReady unless device, blocks and sizes are those of a shard with this configuration."""
    longest = -(-config.max_total_tokens // config.block_size)
    asked = config.max_batch_total_tokens
    most = config.max_batch_size * longest if asked is None else asked // config.block_size
    sizes = (
        ready.weight_bytes,
        ready.read_bytes,
        ready.cache.kv_bytes_per_token,
        ready.cache.state_bytes_per_slot,
    )
    faults = {
        f"the device {ready.device[:20]!r}": ready.device.partition(":")[0] not in DEVICES,
        f"blocks of {ready.block_size} tokens": ready.block_size != config.block_size,
        f"{ready.num_blocks} blocks": not longest <= ready.num_blocks <= max(most, longest),
        "sizes that no memory has": not all(0 <= size < MAX_BYTES for size in sizes),
        f"a load of {ready.load_seconds} s": not 0 <= ready.load_seconds < MAX_SECONDS,
    }
    for name, is_wrong in faults.items():
        if is_wrong:
            raise WrongReady(f"shard {ready.rank} reports {name}: is its version the router's?")
