"""Places of GGUF files' tensors in the models that were published. Imports no torch."""

from typing import NamedTuple, Protocol

from peregrine_server.models.loading.slices import Slice


class Place(NamedTuple):
    """The place of a GGUF file's tensor in the published model."""

    name: str
    """With its kind, "weight" or "bias"."""
    rows: Slice | None = None
    """The model's rows, each run at its place in the file; None: in the same order."""
    is_linear: bool = False
    """Whether a weight format reads it."""


class GgufLayout(Protocol):
    """How a model family is stored in GGUF files."""

    def place(self, name: str) -> Place:
        """The place of the tensor that a file calls `name`. Raises UnsupportedModel if the family has none such."""


def blocks_name(linear: str, type_name: str) -> str:
    """The name under which the blocks of a linear's weight are shown ("h.0.mlp.dense_4h_to_h.q4_0")."""
    return f"{linear}.{type_name.lower()}"
