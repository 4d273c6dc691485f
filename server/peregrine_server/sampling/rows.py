"""The rows of a step that use one logits processor, and what the processor may need to know of them."""

from dataclasses import dataclass, replace

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from peregrine_server.batch.batch import Batch
from peregrine_server.batch.transfer import to_device
from peregrine_server.protocol import SamplingParams, SequenceFailed
from peregrine_server.structured.masks import GrammarMasks


@dataclass(frozen=True, slots=True)
class SampledRows:
    """R of the rows that a step samples."""

    batch: Batch
    grammar_masks: GrammarMasks
    slots: NDArray[np.int64]
    """int64[R]. A slot with draft tokens has several rows."""
    lengths: NDArray[np.int64]
    """int64[R]: known tokens of each row's sequence, which is the position of the token to sample."""
    failed: list[SequenceFailed]
    """Output: sequences that a processor found unable to go on."""

    def only(self, index: int) -> "SampledRows":
        """One of the rows."""
        at = slice(index, index + 1)
        return replace(self, slots=self.slots[at], lengths=self.lengths[at])

    @property
    def params(self) -> list[SamplingParams]:
        """Sampling parameters of each row."""
        return [self.batch.parameters[slot] for slot in self.slots]

    def values(self, field: str) -> Tensor:
        """One numeric field of SamplingParams, [R, 1]."""
        values = torch.tensor([getattr(params, field) for params in self.params])
        return self.on_device(values.numpy())[:, None]

    def known_tokens(self) -> tuple[Tensor, Tensor]:
        """int64[R, L], bool[R, L]: known tokens of each row, padded with its first; whether each was generated."""
        lengths = self.on_device(self.lengths)[:, None]
        prompt_lengths = self.on_device(self.batch.prompt_lengths[self.slots])[:, None]
        positions = torch.arange(int(self.lengths.max()), device=self.batch.device)
        ids = self.batch.token_ids[self.on_device(self.slots), : len(positions)]
        is_known = positions < lengths
        return torch.where(is_known, ids, ids[:, :1]), is_known & (positions >= prompt_lengths)

    def on_device(self, array: NDArray[np.generic]) -> Tensor:
        """A copy of `array` on the batch's device, not waited for."""
        return to_device(array, self.batch.device)
