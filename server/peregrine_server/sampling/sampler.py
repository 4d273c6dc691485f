"""From logits to tokens: the registry's processors, vectorised over a mixed batch, then the draw.

The order is that of `registry.PROCESSORS`. A processor runs on the rows that use it, and not at all if there are none.
"""

import logging
from collections.abc import Sequence

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from peregrine_kernels import Backend, backend_for
from peregrine_server.batch.batch import Batch
from peregrine_server.batch.slot_parameters import Rows
from peregrine_server.batch.transfer import to_device
from peregrine_server.protocol import SequenceFailed
from peregrine_server.sampling.draw import cumulative_probabilities, draw, uniforms
from peregrine_server.sampling.registry import PROCESSORS, Processor, fused_fields
from peregrine_server.sampling.rows import SampledRows
from peregrine_server.sampling.sampled import Sampled
from peregrine_server.structured.masks import GrammarMasks

log = logging.getLogger(__name__)


class Sampler:
    """Samples a step's tokens, with parameters and known tokens from the batch and masks from the grammars."""

    def __init__(
        self,
        batch: Batch,
        grammar_masks: GrammarMasks,
        backend: Backend | None = None,
        processors: Sequence[Processor] = PROCESSORS,
    ) -> None:
        """`backend`: that of the logits' device, chosen if None. `batch` knows the fields of these `processors`."""
        self._batch = batch
        self._grammar_masks = grammar_masks
        self._backend = backend or backend_for(batch.device)
        self._processors = processors
        self._fused_fields = fused_fields(processors)

    def __call__(
        self,
        logits: Tensor,
        slots: NDArray[np.int64],
        lengths: NDArray[np.int64] | None = None,
        used: dict[str, Rows] | None = None,
    ) -> Sampled:
        """Samples a token for each row of logits float32[S, V], which may be overwritten.

        `slots` int64[S]; a slot may occur several times, with different lengths. `lengths` int64[S]: known tokens of
        each row's sequence; by default all that the batch has. `used`: `SlotParameters.used(slots)`, if the caller has
        it already.
        """
        lengths = self._batch.lengths[slots] if lengths is None else lengths
        used = self._batch.parameters.used(slots) if used is None else used
        if not used:
            token_ids = self._backend.argmax(logits)
            return Sampled(token_ids, scores=_best_scores(token_ids, logits))
        if (sample := self._backend.sample) is not None and used.keys() <= self._fused_fields:
            parameters = self._fused_parameters(slots, lengths, used, logits.device)
            token_ids, drawn_logprobs = sample(logits, parameters, "logprobs" in used)
            return Sampled(token_ids, drawn_logprobs, scores=_scores_of(token_ids, logits))
        scores, failed = self._process(logits, slots, lengths, used)
        token_ids = self._backend.argmax(scores)
        if (drawn := used.get("do_sample")) is not None:
            uniform = self._uniforms(slots[drawn], lengths[drawn])
            rows = to_device(drawn, logits.device)
            cumulative = cumulative_probabilities(scores[rows])
            token_ids[rows] = draw(cumulative, to_device(uniform, logits.device))
        logprobs, top = self._logprobs(scores, token_ids, slots, used)
        token_scores = _best_scores(token_ids, scores) if drawn is None else _scores_of(token_ids, scores)
        if drawn is not None:
            token_scores[rows] *= cumulative[:, -1].to(token_scores.dtype)
        return Sampled(token_ids, logprobs, top, tuple(failed), token_scores)

    def _process(
        self, scores: Tensor, slots: NDArray[np.int64], lengths: NDArray[np.int64], used: dict[str, Rows]
    ) -> tuple[Tensor, list[SequenceFailed]]:
        """Scores [S, V] after every processor that a row uses; the sequences that cannot go on."""
        failed: list[SequenceFailed] = []
        for processor in self._processors:
            users = [used[field] for field in processor.fields if field in used]
            if not users:
                continue
            at = np.unique(np.concatenate(users))
            rows = SampledRows(self._batch, self._grammar_masks, slots[at], lengths[at], failed)
            if len(at) == len(slots):
                scores = apply(processor, scores, rows)
            else:
                device_at = rows.on_device(at)
                scores.index_copy_(0, device_at, apply(processor, scores[device_at], rows))
        return scores, failed

    def _uniforms(self, slots: NDArray[np.int64], lengths: NDArray[np.int64]) -> NDArray[np.float64]:
        return uniforms(self._batch.parameters.seeds[slots], lengths)

    def _fused_parameters(
        self, slots: NDArray[np.int64], lengths: NDArray[np.int64], used: dict[str, Rows], device: torch.device
    ) -> Tensor:
        """float64[4, S] for `Backend.sample`, as one copy to the device."""
        values = np.full((4, len(slots)), -1.0)
        values[:3] = self._batch.parameters.thresholds[:, slots]
        if (drawn := used.get("do_sample")) is not None:
            values[3, drawn] = self._uniforms(slots[drawn], lengths[drawn])
        return to_device(values, device)

    def _logprobs(
        self, scores: Tensor, token_ids: Tensor, slots: NDArray[np.int64], used: dict[str, Rows]
    ) -> tuple[Tensor | None, tuple[tuple[int, Tensor, Tensor], ...]]:
        """Log-probabilities and likeliest tokens, as in `Sampled`."""
        if "logprobs" not in used and "top_n_tokens" not in used:
            return None, ()
        total = scores.logsumexp(-1)
        logprobs = scores.gather(-1, token_ids[:, None])[:, 0] - total
        rows = used.get("top_n_tokens", np.zeros(0, dtype=np.intp)).tolist()
        counts = [self._batch.parameters[slots[row]].top_n_tokens for row in rows]
        values, ids = scores[rows].topk(min(max(counts, default=0), scores.shape[-1]))
        values = values - total[rows, None]
        top = ((row, ids[i, :n], values[i, :n]) for i, (row, n) in enumerate(zip(rows, counts, strict=True)))
        return logprobs, tuple(top)


def apply(processor: Processor, scores: Tensor, rows: SampledRows) -> Tensor:
    """The new scores of the rows. If the processor raises, the rows it cannot do keep theirs, and their sequences fail.

    Processors change nothing but the scores, so other sequences are as they were. An error of the device itself, whose
    state is unknown after it, is raised.
    """
    try:
        return processor.apply(scores, rows)
    except Exception as error:
        if isinstance(error, RuntimeError) and scores.device.type != "cpu":
            raise
        if len(rows.slots) > 1:
            return torch.cat([apply(processor, scores[i : i + 1], rows.only(i)) for i in range(len(rows.slots))])
        log.exception("a request fails: its %s cannot be applied", " and ".join(processor.fields))
        said = f"`{processor.fields[0]}` cannot be applied"
        rows.failed.append(SequenceFailed(int(rows.slots[0]), said, f"{type(error).__name__}: {error}"))
        return scores


def _scores_of(token_ids: Tensor, scores: Tensor) -> Tensor:
    return scores.gather(-1, token_ids[:, None])[:, 0]


def _best_scores(token_ids: Tensor, scores: Tensor) -> Tensor:
    """The best score of each row, which is its token's; NaN if one is anywhere, which the native argmax passes over and
    torch's takes. On a CPU this takes 10 microseconds a row of 65,024 more than to look the token's up."""
    return scores.amax(-1) if scores.device.type == "cpu" else _scores_of(token_ids, scores)
