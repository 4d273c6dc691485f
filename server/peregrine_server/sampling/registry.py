"""The logits processors in the order in which they apply, and the SamplingParams fields that turn each of them on.

The order is TGI's, with min_p where transformers has it. A new sampling parameter is a field of SamplingParams, a row
of PROCESSORS, and the function that the row names.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from peregrine_server.sampling.processors import (
    NEVER,
    add_bias,
    add_watermark,
    divide_by_temperature,
    forbid,
    keep_min_p,
    keep_top_k,
    keep_top_p,
    keep_typical,
    penalize_counts,
    penalize_repetition,
)
from peregrine_server.sampling.rows import SampledRows


@dataclass(frozen=True, slots=True)
class Processor:
    """One step on the way from logits to the scores that tokens are drawn from."""

    fields: tuple[str, ...]
    """SamplingParams fields: a row uses the processor if any of them differs from its default."""
    apply: Callable[[Tensor, SampledRows], Tensor]
    """(scores float32[R, V] of the rows that use it, these rows) -> their new scores. Must not change its argument."""
    is_fused: bool = False
    """Whether the fused kernel `Backend.sample` applies it as well."""


def _add_bias(scores: Tensor, rows: SampledRows) -> Tensor:
    entries = [(i, *entry) for i, params in enumerate(rows.params) for entry in params.logit_bias]
    at, token_ids, biases = (rows.on_device(np.array(column)) for column in zip(*entries, strict=True))
    return add_bias(scores, at, token_ids, biases.to(scores.dtype))


def _add_watermark(scores: Tensor, rows: SampledRows) -> Tensor:
    last = rows.batch.token_ids[rows.on_device(rows.slots), rows.on_device(rows.lengths - 1)]
    return add_watermark(scores, last[:, None])


def _penalize_repetition(scores: Tensor, rows: SampledRows) -> Tensor:
    known, _ = rows.known_tokens()
    return penalize_repetition(scores, known, rows.values("repetition_penalty"))


def _penalize_counts(scores: Tensor, rows: SampledRows) -> Tensor:
    known, is_generated = rows.known_tokens()
    frequency, presence = rows.values("frequency_penalty"), rows.values("presence_penalty")
    return penalize_counts(scores, known, is_generated.to(scores.dtype), frequency, presence)


def _mask_by_grammar(scores: Tensor, rows: SampledRows) -> Tensor:
    allowed, failed = rows.grammar_masks.masks(rows.slots)
    rows.failed.extend(failed)
    return scores.masked_fill(~rows.on_device(allowed), NEVER)


def _forbid_ends(scores: Tensor, rows: SampledRows) -> Tensor:
    """Forbids `end_token_ids` to rows with fewer than `min_tokens` generated tokens."""
    num_generated = rows.lengths - rows.batch.prompt_lengths[rows.slots]
    ends = [
        (i, token_id)
        for i, (params, count) in enumerate(zip(rows.params, num_generated.tolist(), strict=True))
        for token_id in params.end_token_ids
        if count < params.min_tokens
    ]
    if not ends:
        return scores
    is_end = torch.zeros_like(scores, dtype=torch.bool)
    is_end[tuple(rows.on_device(np.array(ends)).T)] = True
    return forbid(scores, is_end)


def _warper(field: str, warp: Callable[[Tensor, Tensor], Tensor], *, is_fused: bool = False) -> Processor:
    """A processor that calls `warp` with the scores and the field's values [R, 1]."""
    return Processor((field,), lambda scores, rows: warp(scores, rows.values(field)), is_fused)


PROCESSORS = (
    Processor(("logit_bias",), _add_bias),
    Processor(("watermark",), _add_watermark),
    Processor(("repetition_penalty",), _penalize_repetition),
    Processor(("frequency_penalty", "presence_penalty"), _penalize_counts),
    Processor(("grammar",), _mask_by_grammar),
    Processor(("min_tokens",), _forbid_ends),
    _warper("temperature", divide_by_temperature, is_fused=True),
    _warper("top_k", keep_top_k, is_fused=True),
    _warper("top_p", keep_top_p, is_fused=True),
    _warper("min_p", keep_min_p),
    _warper("typical_p", keep_typical),
)
"""Every processor, in order. After the last one the token is drawn; log-probabilities are those of its scores."""

FUSED_SAMPLER_FIELDS = ("do_sample", "logprobs")
"""Fields read after all processors, by the sampler or by the fused kernel `Backend.sample`."""
SAMPLER_FIELDS = (*FUSED_SAMPLER_FIELDS, "top_n_tokens")
"""Fields read by the sampler after all processors."""
OTHER_FIELDS = ("seed", "end_token_ids", "prompt_logprobs")
"""Fields that change no sampled token by themselves: `seed` is read with do_sample and `end_token_ids` with min_tokens;
prompt log-probabilities are the runner's."""


def sampling_fields(processors: Sequence[Processor] = PROCESSORS) -> tuple[str, ...]:
    """Fields that matter to the sampler if they differ from their default, for `SlotParameters`."""
    return (*(field for processor in processors for field in processor.fields), *SAMPLER_FIELDS)


def fused_fields(processors: Sequence[Processor] = PROCESSORS) -> frozenset[str]:
    """Fields that the fused kernel `Backend.sample` takes into account."""
    fused = (field for processor in processors if processor.is_fused for field in processor.fields)
    return frozenset((*fused, *FUSED_SAMPLER_FIELDS))
