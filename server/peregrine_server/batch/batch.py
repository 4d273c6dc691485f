"""The persistent batch: tokens, lengths and block tables of every slot, kept between steps and updated by Step deltas.

The token ids live on the device, so that a decode reads the token that the last step sampled without a copy to the
host. Lengths and block tables live on the host: the router's messages alone determine them. Where decode steps are CUDA
graphs, the device has the block tables as well, and such a step sends it slots and positions alone.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from peregrine_kernels import PagedBatch
from peregrine_kernels.kv_cache import GraphDecodeRows
from peregrine_server.batch.slot_parameters import SlotParameters
from peregrine_server.batch.transfer import to_device
from peregrine_server.protocol import Fork, NewSequence, Step, unpack

_Ints = NDArray[np.int64]


@dataclass(frozen=True, slots=True)
class ForwardInput:
    """Inputs of one forward pass over T tokens, S of which are followed by a sampled one."""

    inputs: tuple[Tensor, PagedBatch] | GraphDecodeRows
    """Token ids int64[T] on the device, and their layout in the KV cache."""
    slots: _Ints
    """Slot of each row. A decode with draft tokens is several rows, of one token each."""
    starts: _Ints
    """Position of each row's first token."""
    num_tokens: _Ints
    """Tokens of each row; their sum is T."""
    sampled: _Ints
    """int64[S]: the slot of each sampled token."""
    lengths: _Ints
    """int64[S]: the position of each sampled token, which is the number of tokens before it."""
    sample_rows: Tensor | None
    """int64[S]: for each sampled token, the index (0..T-1) of the hidden state to project. Forks use their parent's.
    None means identity: every row is sampled, in order."""
    draft_tokens: _Ints | None
    """int64[S]: the draft token at each sampled token's position, -1 where there is none. None without any drafts."""


class Batch:
    """`max_batch_size` slots of up to `max_total_tokens` tokens."""

    def __init__(
        self,
        max_batch_size: int,
        max_total_tokens: int,
        block_size: int,
        device: torch.device,
        sampling_fields: Sequence[str],
        *,
        for_graph: bool = False,
        has_state: bool = False,
    ) -> None:
        """`sampling_fields` as in `SlotParameters`. `for_graph`: steps of decodes alone become `GraphDecodeRows`.

        `has_state`: the model keeps state by slot, and is told the slots of a step.
        """
        self.block_size = block_size
        self.device = device
        self._max_total_tokens = max_total_tokens
        self._has_state = has_state
        self.token_ids = torch.zeros(max_batch_size, max_total_tokens + 1, dtype=torch.int64, device=device)
        """[slots, positions]; one position more, for the token that ends a sequence of full length."""
        self.parameters = SlotParameters(max_batch_size, sampling_fields)
        self.prompt_lengths: _Ints = np.zeros(max_batch_size, dtype=np.int64)
        self.lengths: _Ints = np.zeros(max_batch_size, dtype=np.int64)
        """Known tokens of each slot, sampled ones included."""
        self._computed: _Ints = np.zeros(max_batch_size, dtype=np.int64)
        """Tokens of each slot with K and V in the cache, or in a step that was started."""
        self._block_tables: _Ints = np.zeros((max_batch_size, -(-max_total_tokens // block_size)), dtype=np.int64)
        self._device_tables = torch.from_numpy(self._block_tables).to(device, copy=True) if for_graph else None
        self._num_blocks: _Ints = np.zeros(max_batch_size, dtype=np.int64)

    def apply(self, step: Step) -> tuple[Tensor, Tensor] | None:
        """Takes over the step's new sequences and blocks.

        Returns the KV blocks to copy before the step computes anything, as sources and destinations int64[C], or None.
        A freed slot keeps its stale rows: nothing reads them before a new sequence overwrites them.
        """
        for sequence in step.new:
            self._add(sequence)
        if not (step.copy_rows or step.block_rows):
            return None
        slots = unpack(step.slots).astype(np.int64)
        copies = self._exchange_blocks(slots[unpack(step.copy_rows)], unpack(step.copy_blocks))
        self._append_blocks(slots[unpack(step.block_rows)], unpack(step.new_blocks))
        return copies

    def forward_input(self, step: Step, drafts: Sequence[_Ints] = ()) -> ForwardInput | None:
        """Inputs of the step's forward pass, or None if it schedules nothing. `apply` comes first.

        `drafts`: draft tokens int64[d] of each decode; empty if there are none at all.
        """
        slots = unpack(step.slots).astype(np.int64)
        if not len(slots):
            return None
        ones = np.ones(step.num_decodes, dtype=np.int64)
        num_tokens = np.concatenate([ones, unpack(step.num_tokens)])
        starts, num_decodes = self._computed[slots], step.num_decodes
        if drafts:
            self._write_drafts(slots[:num_decodes], drafts)
            slots, starts, num_tokens = _add_draft_rows(drafts, slots, starts, num_tokens)
            num_decodes += sum(map(len, drafts))
        ends = starts + num_tokens
        are_rows_sampled = num_decodes == len(slots) and not step.forks and bool((ends >= self.lengths[slots]).all())
        inputs = self._stage(slots, starts, ends, num_decodes, for_graph=are_rows_sampled)
        sampled, lengths, sample_rows = slots, ends, None
        if not are_rows_sampled:
            sampled, lengths, sample_rows = self._sampled(slots, ends, num_tokens, step.forks)
        draft_tokens = _draft_after_row(drafts, len(sampled)) if drafts else None
        return ForwardInput(inputs, slots, starts, num_tokens, sampled, lengths, sample_rows, draft_tokens)

    @property
    def max_blocks(self) -> int:
        """Blocks that a sequence may have."""
        return int(self._block_tables.shape[1])

    def progress(self, slots: _Ints) -> tuple[_Ints, _Ints, _Ints]:
        """Computed tokens, known tokens and blocks of slots int64[N], each int64[N]."""
        return self._computed[slots], self.lengths[slots], self._num_blocks[slots]

    def append(self, slots: _Ints, lengths: _Ints, token_ids: Tensor) -> None:
        """Appends tokens (int64[S], on the device) to slots int64[S] at positions `lengths` int64[S].

        A slot may occur several times, with ascending positions.
        """
        self.token_ids[self._on_device(slots), self._on_device(lengths)] = token_ids
        self.lengths[slots] = lengths + 1
        self._computed[slots] = lengths

    def draft_room(self, slot: int) -> int:
        """Draft tokens that fit behind the known tokens of a slot, with a place left for the token sampled after them.

        0 with a grammar: its mask is computed for the position after the last sampled token, and for no draft token.
        """
        if self.parameters[slot].grammar is not None:
            return 0
        capacity = min(int(self._num_blocks[slot]) * self.block_size, self._max_total_tokens)
        return capacity - int(self.lengths[slot]) - 1

    def _add(self, sequence: NewSequence) -> None:
        slot = sequence.slot
        ids = unpack(sequence.token_ids).astype(np.int64)
        self.token_ids[slot, : len(ids)] = self._on_device(ids)
        self.parameters[slot] = sequence.sampling
        self.prompt_lengths[slot] = sequence.prompt_length
        self.lengths[slot] = len(ids)
        self._computed[slot] = sequence.num_cached
        self._num_blocks[slot] = 0

    def _fork(self, fork: Fork) -> None:
        slot, parent = fork.slot, fork.parent
        length = int(self.lengths[parent])
        self.token_ids[slot, :length] = self.token_ids[parent, :length]
        self.parameters[slot] = fork.sampling
        for state in (self.prompt_lengths, self.lengths, self._computed, self._block_tables, self._num_blocks):
            state[slot] = state[parent]
        if self._device_tables is not None:
            self._device_tables[slot] = self._device_tables[parent]

    def _exchange_blocks(self, slots: _Ints, blocks: NDArray[np.int32]) -> tuple[Tensor, Tensor] | None:
        """Replaces each slot's last block; returns the old and the new ones, int64[C] each."""
        if not len(slots):
            return None
        last = self._num_blocks[slots] - 1
        sources = self._block_tables[slots, last]
        self._put_blocks(slots, last, blocks)
        return self._on_device(sources), self._on_device(self._block_tables[slots, last])

    def _append_blocks(self, slots: _Ints, blocks: NDArray[np.int32]) -> None:
        if not len(slots):
            return
        columns = np.empty_like(slots)
        for i, slot in enumerate(slots.tolist()):
            columns[i] = self._num_blocks[slot]
            self._num_blocks[slot] += 1
        self._put_blocks(slots, columns, blocks)

    def _put_blocks(self, slots: _Ints, columns: _Ints, blocks: NDArray[np.int32]) -> None:
        """Writes table entries; on the device in stream order, behind the steps that were started before."""
        self._block_tables[slots, columns] = blocks
        if self._device_tables is not None:
            rows, at, values = self._on_device(np.stack([slots, columns, blocks]))
            self._device_tables[rows, at] = values

    def _write_drafts(self, slots: _Ints, drafts: Sequence[_Ints]) -> None:
        """Writes draft tokens behind the known tokens of slots int64[N], on the device."""
        draft_lengths = np.array([len(draft) for draft in drafts], dtype=np.int64)
        starts = self.lengths[slots].tolist()
        positions = np.concatenate([np.arange(n, n + d) for n, d in zip(starts, draft_lengths, strict=True)])
        rows, tokens = np.repeat(slots, draft_lengths), np.concatenate(drafts)
        self.token_ids[self._on_device(rows), self._on_device(positions)] = self._on_device(tokens)

    def _stage(
        self, slots: _Ints, starts: _Ints, ends: _Ints, num_decodes: int, *, for_graph: bool
    ) -> tuple[Tensor, PagedBatch] | GraphDecodeRows:
        """Token ids of the rows and their layout in the KV cache. Their tokens count as computed from here on.

        `for_graph`: every row is sampled.
        """
        self._computed[slots] = ends
        if self._device_tables is not None and for_graph and len(slots) <= len(self.lengths):
            rows = self._on_device(np.stack([slots, starts]))
            return GraphDecodeRows(rows, self.token_ids, self._device_tables, self.block_size)
        row_slots, positions, num_tokens = slots, starts, ends - starts
        if num_decodes < len(slots):
            rows_end = np.cumsum(num_tokens)
            row_slots = np.repeat(slots, num_tokens)
            positions = np.arange(rows_end[-1]) + np.repeat(starts - (rows_end - num_tokens), num_tokens)
        pages = self._block_tables[row_slots, positions // self.block_size]
        device_positions = self._on_device(positions)
        max_blocks = -(-int(ends.max()) // self.block_size)
        paged = PagedBatch(
            positions=device_positions,
            slot_mapping=self._on_device(pages * self.block_size + positions % self.block_size),
            block_tables=self._on_device(self._block_tables[slots, :max_blocks]),
            query_lengths=tuple(num_tokens.tolist()),
            context_lengths=tuple(ends.tolist()),
            num_decodes=num_decodes,
            slots=self._on_device(slots) if self._has_state else None,
        )
        return self.token_ids[self._on_device(row_slots), device_positions], paged

    def _sampled(self, slots: _Ints, ends: _Ints, num_tokens: _Ints, forks: list[Fork]) -> tuple[_Ints, _Ints, Tensor]:
        """Slots, positions and sample rows of the sampled tokens, as in `ForwardInput`; forks are last."""
        is_sampled = ends >= self.lengths[slots]
        sampled, lengths, rows = slots[is_sampled], ends[is_sampled], (np.cumsum(num_tokens) - 1)[is_sampled]
        if forks:
            row_of = dict(zip(sampled.tolist(), rows.tolist(), strict=True))
            sampled = np.concatenate([sampled, [fork.slot for fork in forks]])
            lengths = np.concatenate([lengths, self.lengths[[fork.parent for fork in forks]]])
            rows = np.concatenate([rows, [row_of[fork.parent] for fork in forks]])
        for fork in forks:
            self._fork(fork)
        return sampled, lengths, self._on_device(rows)

    def _on_device(self, array: _Ints) -> Tensor:
        return to_device(array, self.device)


def _add_draft_rows(
    drafts: Sequence[_Ints], slots: _Ints, starts: _Ints, num_tokens: _Ints
) -> tuple[_Ints, _Ints, _Ints]:
    """Slots, starts and token counts with a row for each draft token, at consecutive positions behind its decode's.

    The first len(drafts) rows are the decodes.
    """
    counts = np.ones(len(slots), dtype=np.int64)
    counts[: len(drafts)] += [len(draft) for draft in drafts]
    firsts = np.cumsum(counts) - counts
    offsets = np.arange(counts.sum()) - np.repeat(firsts, counts)
    return np.repeat(slots, counts), np.repeat(starts, counts) + offsets, np.repeat(num_tokens, counts)


def _draft_after_row(drafts: Sequence[_Ints], num_sampled: int) -> _Ints:
    """int64[S]: the draft token behind each row of the decodes, which come first; -1 behind the last row of each, and
    for all other sequences."""
    after = [token for draft in drafts for token in (*draft.tolist(), -1)]
    return np.array(after + [-1] * (num_sampled - len(after)), dtype=np.int64)
