"""A step on the device, and the result that it will have."""

from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from peregrine_server.protocol import PromptLogprobs, SequenceFailed, StepResult, TopTokens, pack
from peregrine_server.sampling.host_copy import PendingCopy
from peregrine_server.sampling.sampled import Sampled

NOT_FINITE = "the model computed no finite logits for it: if that recurs, the operator should try another --dtype"
"""Error of a sequence, for its client."""


@dataclass(frozen=True, slots=True)
class PendingStep:
    """A step that was launched; its tokens may not be sampled yet."""

    step_id: int
    slots: NDArray[np.int64]
    """int64[S]: the slot of each sampled token."""
    copy: PendingCopy | None
    prompt_logprobs: list[PromptLogprobs]
    num_draft_tokens: int = 0

    @property
    def is_done(self) -> bool:
        return self.copy is None or self.copy.is_done

    def result(self) -> StepResult:
        """Waits for the tokens."""
        if self.copy is None:
            return StepResult(self.step_id, b"", b"", b"", prompt_logprobs=self.prompt_logprobs)
        return _result(self, self.copy.wait())


def _result(step: PendingStep, sampled: Sampled) -> StepResult:
    return StepResult(
        step.step_id,
        pack(step.slots.tolist()),
        pack(sampled.token_ids.tolist()),
        pack_floats(sampled.logprobs) if sampled.logprobs is not None else b"",
        top_tokens=[TopTokens(row, pack(ids.tolist()), pack_floats(logprobs)) for row, ids, logprobs in sampled.top],
        prompt_logprobs=step.prompt_logprobs,
        failed=[*sampled.failed, *_not_finite(step.slots, sampled)],
        num_draft_tokens=step.num_draft_tokens,
    )


def _not_finite(slots: NDArray[np.int64], sampled: Sampled) -> list[SequenceFailed]:
    """The sequences whose logits are infinite or no numbers: their weights, or numbers too large for the dtype."""
    if sampled.scores is None:
        return []
    is_finite = np.isfinite(sampled.scores.numpy())
    if is_finite.all():
        return []
    return [SequenceFailed(slot, NOT_FINITE) for slot in dict.fromkeys(slots[~is_finite].tolist())]


def pack_floats(values: Tensor) -> bytes:
    """float32 values as bytes. Waits for a CUDA tensor."""
    return values.to(torch.float32).cpu().numpy().tobytes()
