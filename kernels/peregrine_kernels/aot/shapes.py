"""The published Falcons' shapes as one device sees them, for which kernels are compiled and modelled."""

from dataclasses import dataclass, replace


@dataclass(frozen=True, slots=True)
class Shape:
    """One rank's share of a model."""

    model: str
    num_layers: int
    hidden_size: int
    num_heads: int
    num_kv_heads: int
    head_dim: int
    ffn_size: int
    vocab_size: int
    is_parallel: bool = True
    """Attention and MLP read the same residual."""
    num_layer_norms: int = 1
    has_alibi: bool = False
    is_gated: bool = False
    """The MLP has a gate beside its up projection (SwiGLU)."""
    num_ranks: int = 1

    @property
    def name(self) -> str:
        return self.model if self.num_ranks == 1 else f"{self.model}/{self.num_ranks}"

    @property
    def qkv_size(self) -> int:
        """Rows of the fused QKV projection."""
        return (self.num_heads + 2 * self.num_kv_heads) * self.head_dim


_7B = Shape("falcon-7b", 32, 4544, 71, 1, 64, 18176, 65024)

SHAPES = (
    Shape("falcon-rw-1b", 24, 2048, 32, 32, 64, 8192, 50304, is_parallel=False, num_layer_norms=2, has_alibi=True),
    Shape("falcon-rw-7b", 36, 4096, 64, 64, 64, 16384, 65024, is_parallel=False, num_layer_norms=2, has_alibi=True),
    _7B,
    # 71 heads are padded to 72: 36 a rank.
    replace(_7B, num_heads=36, ffn_size=9088, vocab_size=32512, num_ranks=2),
    replace(_7B, num_heads=18, ffn_size=4544, vocab_size=16256, num_ranks=4),
    Shape("falcon-40b", 60, 8192, 128, 8, 64, 32768, 65024, num_layer_norms=2),
    Shape("falcon-180B", 80, 14848, 232, 8, 64, 59392, 65024, num_layer_norms=2),
    Shape("falcon-11B", 60, 4096, 32, 8, 128, 16384, 65024),
    Shape("Falcon3-7B", 28, 3072, 12, 4, 256, 23040, 131072, is_parallel=False, num_layer_norms=2, is_gated=True),
)
"""Falcon3 is of another architecture, which is not served yet; its head dimension is the largest of the family."""
