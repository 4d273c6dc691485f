"""From logits to tokens: processors in TGI's order, vectorised over a mixed batch; what is off costs nothing.

logit_bias -> watermark -> repetition penalty -> frequency and presence penalties -> grammar mask -> min_tokens ->
temperature -> top_k -> top_p -> min_p -> typical_p -> draw. Log-probabilities are those after all of them.
"""

from collections.abc import Callable
from functools import partial

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from peregrine_kernels import Backend, backend_for
from peregrine_server.batch.batch import Batch
from peregrine_server.batch.slot_parameters import Rows
from peregrine_server.batch.transfer import to_device
from peregrine_server.protocol import SamplingParams, SequenceFailed
from peregrine_server.sampling.draw import draw, uniforms
from peregrine_server.sampling.processors import (
    NEVER,
    WARPERS,
    add_bias,
    add_watermark,
    forbid,
    penalize_counts,
    penalize_repetition,
)
from peregrine_server.sampling.sampled import Sampled
from peregrine_server.structured.masks import GrammarMasks

SAMPLE_FIELDS = {"temperature", "top_k", "top_p", "do_sample", "logprobs"}
"""What `Sample` knows of."""


class Sampler:
    """Samples a step's tokens: parameters and tokens come from the batch, masks from the grammars."""

    def __init__(self, batch: Batch, grammar_masks: GrammarMasks, backend: Backend | None = None) -> None:
        """`backend`: what the logits' device has for steps that use nothing of which it does not know."""
        self._batch = batch
        self._grammar_masks = grammar_masks
        self._backend = backend or backend_for(batch.device)

    def __call__(
        self,
        logits: Tensor,
        slots: NDArray[np.int64],
        lengths: NDArray[np.int64] | None = None,
        used: dict[str, Rows] | None = None,
    ) -> Sampled:
        """logits float32[S, V] of the sequences in `slots`; may be overwritten.

        `lengths` int64[S]: how many of each one's tokens count as known; all that the batch knows if not given. A
        sequence may be there several times, with different ones. `used`: `Parameters.used` of these slots, if it is
        known.
        """
        lengths = self._batch.lengths[slots] if lengths is None else lengths
        used = self._batch.parameters.used(slots) if used is None else used
        if not used:
            return Sampled(self._backend.argmax(logits))
        if (sample := self._backend.sample) is not None and used.keys() <= SAMPLE_FIELDS:
            parameters = self._sample_parameters(slots, lengths, used, logits.device)
            return Sampled(*sample(logits, parameters, "logprobs" in used))
        step = _Scores(self._batch, self._grammar_masks, logits, slots, lengths, used)
        scores = step.processed()
        token_ids = self._backend.argmax(scores)
        if (drawn := used.get("do_sample")) is not None:
            uniform = self._uniforms(slots[drawn], lengths[drawn])
            rows = to_device(drawn, logits.device)
            token_ids[rows] = draw(scores[rows], to_device(uniform, logits.device))
        logprobs, top = self._describe(scores, token_ids, slots, used)
        return Sampled(token_ids, logprobs, top, tuple(step.failed))

    def _uniforms(self, slots: NDArray[np.int64], lengths: NDArray[np.int64]) -> NDArray[np.float64]:
        return uniforms(self._batch.parameters.seeds[slots], lengths)

    def _sample_parameters(
        self, slots: NDArray[np.int64], lengths: NDArray[np.int64], used: dict[str, Rows], device: torch.device
    ) -> Tensor:
        """As `Sample` takes them, in one copy to the device."""
        values = np.full((4, len(slots)), -1.0)
        values[:3] = self._batch.parameters.thresholds[:, slots]
        if (drawn := used.get("do_sample")) is not None:
            values[3, drawn] = self._uniforms(slots[drawn], lengths[drawn])
        return to_device(values, device)

    def _describe(
        self, scores: Tensor, token_ids: Tensor, slots: NDArray[np.int64], used: dict[str, Rows]
    ) -> tuple[Tensor | None, tuple[tuple[int, Tensor, Tensor], ...]]:
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


class _Scores:
    """The logits of one step on their way through the processors."""

    def __init__(
        self,
        batch: Batch,
        grammar_masks: GrammarMasks,
        logits: Tensor,
        slots: NDArray[np.int64],
        lengths: NDArray[np.int64],
        used: dict[str, Rows],
    ) -> None:
        self.failed: list[SequenceFailed] = []
        self._batch = batch
        self._grammar_masks = grammar_masks
        self._scores = logits
        self._slots = slots
        self._lengths = lengths
        self._used = used
        self._device = logits.device

    def processed(self) -> Tensor:
        """Scores [S, V] after every processor that a row uses."""
        for names, process in (
            (("logit_bias",), self._bias),
            (("watermark",), self._watermark),
            (("repetition_penalty",), self._penalize_repetition),
            (("frequency_penalty", "presence_penalty"), self._penalize_counts),
            (("grammar",), self._constrain),
            (("min_tokens",), self._forbid_ends),
        ):
            self._apply(process, *names)
        for name in WARPERS:
            self._apply(partial(self._warp, name), name)
        return self._scores

    def _apply(self, process: Callable[[Tensor, Rows], Tensor], *names: str) -> None:
        """Runs `process` on the rows that use a parameter, if there are any."""
        users = [self._used[name] for name in names if name in self._used]
        if not users:
            return
        rows = np.unique(np.concatenate(users))
        if len(rows) == len(self._slots):
            self._scores = process(self._scores, rows)
            return
        at = self._tensor(rows)
        self._scores.index_copy_(0, at, process(self._scores[at], rows))

    def _bias(self, scores: Tensor, rows: Rows) -> Tensor:
        entries = [(i, *entry) for i, params in enumerate(self._params(rows)) for entry in params.logit_bias]
        at, token_ids, biases = (self._tensor(np.array(column)) for column in zip(*entries, strict=True))
        return add_bias(scores, at, token_ids, biases.to(scores.dtype))

    def _watermark(self, scores: Tensor, rows: Rows) -> Tensor:
        slots = self._slots[rows]
        last = self._batch.token_ids[self._tensor(slots), self._tensor(self._lengths[rows] - 1)]
        return add_watermark(scores, last[:, None])

    def _penalize_repetition(self, scores: Tensor, rows: Rows) -> Tensor:
        known, _ = self._history(rows)
        return penalize_repetition(scores, known, self._values("repetition_penalty", rows))

    def _penalize_counts(self, scores: Tensor, rows: Rows) -> Tensor:
        known, is_generated = self._history(rows)
        frequency, presence = (self._values(name, rows) for name in ("frequency_penalty", "presence_penalty"))
        return penalize_counts(scores, known, is_generated.to(scores.dtype), frequency, presence)

    def _constrain(self, scores: Tensor, rows: Rows) -> Tensor:
        allowed, self.failed = self._grammar_masks.masks(self._slots[rows])
        return scores.masked_fill(~self._tensor(allowed), NEVER)

    def _forbid_ends(self, scores: Tensor, rows: Rows) -> Tensor:
        generated = self._lengths[rows] - self._batch.prompt_lengths[self._slots[rows]]
        ends = [
            (i, token_id)
            for i, (params, count) in enumerate(zip(self._params(rows), generated.tolist(), strict=True))
            for token_id in params.end_token_ids
            if count < params.min_tokens
        ]
        if not ends:
            return scores
        is_end = torch.zeros_like(scores, dtype=torch.bool)
        is_end[tuple(self._tensor(np.array(ends)).T)] = True
        return forbid(scores, is_end)

    def _warp(self, name: str, scores: Tensor, rows: Rows) -> Tensor:
        return WARPERS[name](scores, self._values(name, rows))

    def _history(self, rows: Rows) -> tuple[Tensor, Tensor]:
        """int64[R, L], bool[R, L]: the tokens of each row, padded with its first; whether each was generated."""
        slots = self._slots[rows]
        lengths = self._tensor(self._lengths[rows])[:, None]
        prompts = self._tensor(self._batch.prompt_lengths[slots])[:, None]
        positions = torch.arange(int(self._lengths[rows].max()), device=self._device)
        ids = self._batch.token_ids[self._tensor(slots), : len(positions)]
        is_known = positions < lengths
        return torch.where(is_known, ids, ids[:, :1]), is_known & (positions >= prompts)

    def _values(self, name: str, rows: Rows) -> Tensor:
        values = torch.tensor([getattr(params, name) for params in self._params(rows)])
        return self._tensor(values.numpy())[:, None]

    def _params(self, rows: Rows) -> list[SamplingParams]:
        return [self._batch.parameters[slot] for slot in self._slots[rows]]

    def _tensor(self, array: NDArray[np.generic]) -> Tensor:
        return to_device(array, self._device)
