"""The cost of steps, from what the shards report."""

from peregrine_router.hardware import ROOFS, Roof
from peregrine_router.launch.model_cost import model_cost
from peregrine_server.models.falcon.config import FalconConfig
from peregrine_server.protocol import CacheSpec, Ready

SHAPE = {"model_type": "falcon", "hidden_size": 128, "num_attention_heads": 2, "num_hidden_layers": 3}
CONFIG = FalconConfig.from_hf({**SHAPE, "vocab_size": 1000})


def ready(rank: int, device_name: str) -> Ready:
    return Ready(rank, "cuda:0", "bfloat16", 1000, 4, 16, CacheSpec(64), "Triton", device_name)


def test_shards_add_up() -> None:
    """Bytes and peaks are those of all shards together."""
    cost = model_cost(CONFIG, [ready(0, "NVIDIA H200"), ready(1, "NVIDIA H200")])
    assert (cost.weight_bytes, cost.kv_bytes_per_token) == (2000, 128)
    assert cost.roof == Roof(*(2 * peak for peak in ROOFS["H200"]))


def test_one_unknown_device_leaves_no_peak() -> None:
    """Half a peak would show twice the use."""
    assert model_cost(CONFIG, [ready(0, "NVIDIA H200"), ready(1, "")]).roof is None


def test_weights_are_those_of_the_linear_layers() -> None:
    """Layers and head of a multi-query Falcon, by hand."""
    cost = model_cost(CONFIG, [ready(0, "")])
    assert cost.layer_weights == 3 * (128 * (128 + 2 * 64) + 128 * 128 + 8 * 128 * 128)
    assert cost.head_weights == 1000 * 128


def test_weights_on_the_host_are_copied_in_every_step() -> None:
    """They are read from the device's memory, too."""
    shard = Ready(0, "cuda:0", "bfloat16", 1000, 4, 16, CacheSpec(64), "Triton", "NVIDIA H200", 500, 1e9)
    cost = model_cost(CONFIG, [shard, shard])
    assert (cost.weight_bytes, cost.host_bytes) == (3000, 1000)
