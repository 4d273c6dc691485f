"""The persistent batch: what a shard remembers of every sequence between steps. Applies Step deltas.

The token ids live on the device, so that a decode reads the token that the last step sampled without the host ever
seeing it. Lengths and block tables live on the host: the router's messages alone determine them. Where steps of decodes
are graphs, the device has the block tables as well, and such a step sends it slots and positions alone.
"""

from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from peregrine_kernels import PagedBatch
from peregrine_kernels.kv_cache import GraphDecodeRows
from peregrine_server.batch.slot_parameters import Parameters
from peregrine_server.batch.transfer import to_device
from peregrine_server.protocol import Fork, NewSequence, Step, unpack
from peregrine_server.speculation.proposer import Speculation
from peregrine_server.speculation.token_mirror import HostTokenMirror

_Ints = NDArray[np.int64]


@dataclass(frozen=True, slots=True)
class ForwardInput:
    """What one step computes. T tokens, S sampled ones."""

    inputs: tuple[Tensor, PagedBatch] | GraphDecodeRows
    """int64[T] token ids on the device, and where they lie."""
    slots: _Ints
    """The slot of each sequence: a decode with guesses is several, of one token each."""
    starts: _Ints
    """The position of its first token."""
    num_tokens: _Ints
    sampled: _Ints
    """int64[S]: the slots that yield a token."""
    lengths: _Ints
    """int64[S]: how many tokens stand before each of those."""
    sample_rows: Tensor | None
    """int64[S]: whose row among the T tokens each of them samples after; forks share their parent's. None if each row
    is one's."""
    guesses: _Ints | None
    """int64[S]: what each of those tokens was guessed to be, for the row behind it; -1 where nothing was guessed. None
    if nothing was at all."""
    copies: tuple[Tensor, Tensor] | None
    """int64[C] each, sources and destinations: blocks to copy before anything is computed."""


class Batch:
    """`max_batch_size` slots of up to `max_total_tokens` tokens."""

    def __init__(
        self,
        max_batch_size: int,
        max_total_tokens: int,
        block_size: int,
        device: torch.device,
        *,
        speculates: bool = False,
        for_graph: bool = False,
    ) -> None:
        """`speculates`: steps that allow it propose draft tokens. `for_graph`: decodes become `GraphDecodeRows`."""
        self.block_size = block_size
        self.device = device
        self._max_total_tokens = max_total_tokens
        self.token_ids = torch.zeros(max_batch_size, max_total_tokens + 1, dtype=torch.int64, device=device)
        """[slots, positions]; one position more, for the token that ends a sequence of full length."""
        self.parameters = Parameters(max_batch_size)
        self.prompt_lengths: _Ints = np.zeros(max_batch_size, dtype=np.int64)
        self.lengths: _Ints = np.zeros(max_batch_size, dtype=np.int64)
        """Known tokens of each slot, sampled ones included."""
        self._computed: _Ints = np.zeros(max_batch_size, dtype=np.int64)
        self._block_tables: _Ints = np.zeros((max_batch_size, -(-max_total_tokens // block_size)), dtype=np.int64)
        self._device_tables = torch.from_numpy(self._block_tables).to(device, copy=True) if for_graph else None
        self._num_blocks: _Ints = np.zeros(max_batch_size, dtype=np.int64)
        self.speculation = (
            Speculation(HostTokenMirror(self.token_ids, is_copy=device.type != "cpu")) if speculates else None
        )

    def apply(self, step: Step) -> ForwardInput | None:
        """Updates the batch; the work of this step, or None if it schedules nothing.

        A freed slot keeps its stale rows: nothing reads them before a new sequence overwrites them.
        """
        for sequence in step.new:
            self._add(sequence)
        slots = unpack(step.slots).astype(np.int64)
        if not len(slots):
            return None
        copies = self._exchange_blocks(slots[unpack(step.copy_rows)], unpack(step.copy_blocks))
        self._append_blocks(slots[unpack(step.block_rows)], unpack(step.new_blocks))
        ones = np.ones(step.num_decodes, dtype=np.int64)
        num_tokens = np.concatenate([ones, unpack(step.num_tokens)])
        starts, num_decodes = self._computed[slots], step.num_decodes
        guesses = self._guess(step, slots[:num_decodes]) if self.guesses_in(step) else []
        if guesses:
            slots, starts, num_tokens = _expand(guesses, slots, starts, num_tokens)
            num_decodes += sum(map(len, guesses))
        ends = starts + num_tokens
        are_rows_sampled = num_decodes == len(slots) and not step.forks and bool((ends >= self.lengths[slots]).all())
        inputs = self._stage(slots, starts, ends, num_decodes, for_graph=are_rows_sampled)
        sampled, lengths, sample_rows = slots, ends, None
        if not are_rows_sampled:
            sampled, lengths, sample_rows = self._sampled(slots, ends, num_tokens, step.forks)
        behind = _behind(guesses, len(sampled)) if guesses else None
        return ForwardInput(inputs, slots, starts, num_tokens, sampled, lengths, sample_rows, behind, copies)

    def append(self, slots: _Ints, lengths: _Ints, token_ids: Tensor) -> None:
        """Makes tokens (int64[S], on the device) the last known ones of slots int64[S], behind so many others.

        The tokens of one slot are in order: of its lengths, the last counts.
        """
        self.token_ids[self._on_device(slots), self._on_device(lengths)] = token_ids
        self.lengths[slots] = lengths + 1
        self._computed[slots] = lengths

    def guesses_in(self, step: Step) -> bool:
        """Whether a sequence may guess in this step: then what was sampled before it is waited for."""
        if self.speculation is None or not step.speculate:
            return False
        return self.speculation.guesses_in(step.id, unpack(step.slots)[: step.num_decodes].tolist())

    def _add(self, sequence: NewSequence) -> None:
        slot = sequence.slot
        ids = unpack(sequence.token_ids).astype(np.int64)
        self.token_ids[slot, : len(ids)] = self._on_device(ids)
        self.parameters[slot] = sequence.sampling
        self.prompt_lengths[slot] = sequence.prompt_length
        self.lengths[slot] = len(ids)
        self._computed[slot] = sequence.num_cached
        self._num_blocks[slot] = 0
        if self.speculation is not None:
            self.speculation.add(slot, ids)

    def _fork(self, fork: Fork) -> None:
        slot, parent = fork.slot, fork.parent
        length = int(self.lengths[parent])
        self.token_ids[slot, :length] = self.token_ids[parent, :length]
        self.parameters[slot] = fork.sampling
        for state in (self.prompt_lengths, self.lengths, self._computed, self._block_tables, self._num_blocks):
            state[slot] = state[parent]
        if self._device_tables is not None:
            self._device_tables[slot] = self._device_tables[parent]
        if self.speculation is not None:
            self.speculation.fork(slot, parent, length)

    def _exchange_blocks(self, slots: _Ints, blocks: NDArray[np.int32]) -> tuple[Tensor, Tensor] | None:
        """Puts a block in place of each slot's last one; what is to be copied."""
        if not len(slots):
            return None
        last = self._num_blocks[slots] - 1
        sources = self._block_tables[slots, last]
        self._put_blocks(slots, last, blocks)
        return self._on_device(sources), self._on_device(self._block_tables[slots, last])

    def _append_blocks(self, slots: _Ints, blocks: NDArray[np.int32]) -> None:
        if not len(slots):
            return
        at = np.empty_like(slots)
        for i, slot in enumerate(slots.tolist()):
            at[i] = self._num_blocks[slot]
            self._num_blocks[slot] += 1
        self._put_blocks(slots, at, blocks)

    def _put_blocks(self, slots: _Ints, at: _Ints, blocks: NDArray[np.int32]) -> None:
        """Into the tables, on the device behind the steps that were started before."""
        self._block_tables[slots, at] = blocks
        if self._device_tables is not None:
            rows, columns, values = self._on_device(np.stack([slots, at, blocks]))
            self._device_tables[rows, columns] = values

    def _guess(self, step: Step, slots: _Ints) -> list[_Ints]:
        """What follows the known tokens of each decode, written behind them; empty if nothing was guessed."""
        assert self.speculation is not None
        which, lengths = slots.tolist(), self.lengths[slots].tolist()
        most = [min(step.speculate, self._room(slot, length)) for slot, length in zip(which, lengths, strict=True)]
        guesses = self.speculation.guess(step.id, which, lengths, most, step.draft_cost)
        if not guesses:
            return []
        counts = np.array([len(each) for each in guesses], dtype=np.int64)
        positions = np.concatenate([np.arange(n, n + d) for n, d in zip(lengths, counts, strict=True)])
        rows, tokens = np.repeat(slots, counts), np.concatenate(guesses)
        self.token_ids[self._on_device(rows), self._on_device(positions)] = self._on_device(tokens)
        return guesses

    def _room(self, slot: int, length: int) -> int:
        """For guesses of a sequence of that length. A mask is made for the token that was sampled, and for none that is
        guessed."""
        if self.parameters[slot].grammar is not None:
            return 0
        return min(int(self._num_blocks[slot]) * self.block_size, self._max_total_tokens) - length - 1

    def _stage(
        self, slots: _Ints, starts: _Ints, ends: _Ints, num_decodes: int, *, for_graph: bool
    ) -> tuple[Tensor, PagedBatch] | GraphDecodeRows:
        """The step's tokens and where they lie; they count as computed from here on. `for_graph`: each is sampled."""
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
        )
        return self.token_ids[self._on_device(row_slots), device_positions], paged

    def _sampled(self, slots: _Ints, ends: _Ints, num_tokens: _Ints, forks: list[Fork]) -> tuple[_Ints, _Ints, Tensor]:
        """The slots that yield a token, forks last, how many stand before it, and the row that it is sampled after."""
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


def _expand(guesses: list[_Ints], slots: _Ints, starts: _Ints, num_tokens: _Ints) -> tuple[_Ints, _Ints, _Ints]:
    """Slots, starts and numbers of tokens of the sequences, the first of which, one a list of guesses, are decodes and
    become one more for each guess, every one starting behind the one before."""
    counts = np.ones(len(slots), dtype=np.int64)
    counts[: len(guesses)] += [len(each) for each in guesses]
    firsts = np.cumsum(counts) - counts
    offsets = np.arange(counts.sum()) - np.repeat(firsts, counts)
    return np.repeat(slots, counts), np.repeat(starts, counts) + offsets, np.repeat(num_tokens, counts)


def _behind(guesses: list[_Ints], num_sampled: int) -> _Ints:
    """int64[S]: the guess behind each row of the decodes, which come first; -1 behind their last, and elsewhere."""
    behind = [guess for each in guesses for guess in (*each.tolist(), -1)]
    return np.array(behind + [-1] * (num_sampled - len(behind)), dtype=np.int64)
