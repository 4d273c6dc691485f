"""Speculative decoding: which sequences propose how many draft tokens, and which of those are accepted.

A decode with d draft tokens becomes 1 + d decodes of one token at consecutive positions. The token that is sampled at
each position equals the one sampled without speculation as long as all draft tokens before it were accepted, because
its random number depends on (seed, position) alone. So a sequence keeps the sampled tokens up to the first rejected
draft token, and its text is the one that it has without speculation.

A sequence's draft length follows from its acceptance rate, an exponential moving average (EMA), and from the cost of
draft tokens, which the router measures. A sequence whose drafts do not pay backs off: it probes with a single draft
token every PROBE_INTERVAL steps, and less often with each rejection.

Every rank proposes the same: the decisions depend on the steps and the tokens, never on this rank's clock.
"""

import numpy as np
from numpy.typing import NDArray

from peregrine_server.batch.batch import Batch
from peregrine_server.protocol import PROBE_INTERVAL, Step, unpack
from peregrine_server.sampling.host_copy import PendingCopy
from peregrine_server.speculation.draft_lengths import choose_draft_lengths
from peregrine_server.speculation.prompt_lookup import propose_ngram
from peregrine_server.speculation.token_mirror import HostTokenMirror

PRIOR_ACCEPTANCE_RATE = 0.5
"""Prior of a shard's first sequence; later ones start from the running mean of earlier sequences."""
PRIOR_EMA_WEIGHT = 0.05
"""EMA weight of one sequence's acceptance rate in one step in that running mean."""
MIN_PRIOR = 0.2
"""Running mean at or above which a new sequence probes once even where its drafts are not expected to pay."""
FIRST_EMA_WEIGHTS = (0.5, 0.33)
"""EMA weights of a sequence's first draft tokens in its acceptance rate."""
EMA_WEIGHT = 0.25
"""EMA weight of every later one. Large enough to notice within a few steps that a text begins to repeat itself, and to
forget a draft token that was accepted by accident as quickly."""
MISSES_BEFORE_BACKOFF = 4
"""Consecutive steps without an n-gram match after which a sequence backs off."""
MAX_MISS_BACKOFF = 64
"""Steps. A sequence without matches retries every 16 steps, then 32, up to this many. Retries of all sequences fall on
the same steps, because a step that may propose waits for the previous step's tokens."""
MAX_REJECTION_BACKOFF = 256
"""Steps. A sequence whose drafts do not pay probes with one draft token every 16 steps, and half as often after each
rejected probe, down to one in this many steps."""
FIRST_REJECTION_BACKOFF = 64
"""Steps, instead of 16, for a sequence that has proposed nothing yet while the running mean is below MIN_PRIOR."""

_Ints = NDArray[np.int64]
_NO_TOKENS = np.zeros(0, dtype=np.int64)


class DraftProposer:
    """Acceptance rate and backoff of every slot."""

    def __init__(self, mirror: HostTokenMirror) -> None:
        self._mirror, max_batch_size = mirror, mirror.num_slots
        self._prior_acceptance_rate = PRIOR_ACCEPTANCE_RATE
        self._acceptance_rates = [PRIOR_ACCEPTANCE_RATE] * max_batch_size
        """Probability that a slot's next draft token is accepted if those before it were."""
        self._num_verified = [0] * max_batch_size
        """Draft tokens that the rate was updated with."""
        self._num_misses = [0] * max_batch_size
        """Consecutive steps without an n-gram match."""
        self._backoff_steps = [1] * max_batch_size
        """A slot proposes only in steps whose id is a multiple of this."""

    def proposes_in(self, step: Step) -> bool:
        """Whether any decode of this step may propose, so that the previous step's tokens are waited for."""
        return step.max_draft_tokens > 0 and any(step.id % self._backoff_steps[slot] == 0 for slot in _decodes(step))

    def propose(self, step: Step, batch: Batch) -> list[_Ints]:
        """Draft tokens int64[d] of each decode of the step, or [] if there are none at all.

        `batch` has applied the step: a draft ends where the blocks of its sequence do, the step's new ones included.
        """
        self._occupy_slots(step, batch)
        if not self.proposes_in(step):
            return []
        self._mirror.wait()
        slots = _decodes(step)
        matches = [self._match(step, batch, slot) for slot in slots]
        if not any(map(len, matches)):
            return []
        rates = [self._acceptance_rates[slot] for slot in slots]
        draft_lengths = choose_draft_lengths(rates, list(map(len, matches)), len(slots), step.draft_cost)
        rows = zip(slots, matches, draft_lengths, strict=True)
        drafts = [match[: self._draft_length(slot, length)] if len(match) else match for slot, match, length in rows]
        return drafts if any(map(len, drafts)) else []

    def verify(self, slots: _Ints, draft_tokens: _Ints, token_ids: _Ints) -> NDArray[np.intp]:
        """Accepted rows among int64[S], see `accepted_rows`; updates the acceptance rates of their slots.

        `draft_tokens` as in `ForwardInput`, `token_ids` the sampled ones.
        """
        accepted, drafted = accepted_rows(draft_tokens, token_ids), slots[draft_tokens >= 0]
        num_tokens = np.bincount(slots[accepted], minlength=len(self._backoff_steps))
        for slot, num_drafted in zip(*np.unique(drafted, return_counts=True), strict=True):
            self._update(int(slot), int(num_drafted), int(num_tokens[slot]) - 1)
        return accepted

    def append(self, slots: _Ints, positions: _Ints, copy: PendingCopy) -> None:
        """Queues the tokens of a step for the mirror: int64[S] slots, and the position of each one's token."""
        self._mirror.append(slots, positions, copy)

    def _occupy_slots(self, step: Step, batch: Batch) -> None:
        """New sequences and forks of the step take their slots, which start from the prior."""
        for sequence in step.new:
            self._mirror.add(sequence.slot, unpack(sequence.token_ids))
            self._reset(sequence.slot)
        for fork in step.forks:
            self._mirror.fork(fork.slot, fork.parent, int(batch.lengths[fork.parent]))
            self._reset(fork.slot)

    def _reset(self, slot: int) -> None:
        self._acceptance_rates[slot], self._num_verified[slot] = self._prior_acceptance_rate, 0
        self._num_misses[slot], self._backoff_steps[slot] = 0, 1

    def _match(self, step: Step, batch: Batch, slot: int) -> _Ints:
        """Draft tokens of a slot, as many as the step allows and its blocks hold; backs off after too many misses."""
        limit = min(step.max_draft_tokens, batch.draft_room(slot))
        if limit <= 0 or step.id % self._backoff_steps[slot]:
            return _NO_TOKENS
        match = propose_ngram(self._mirror.tokens(slot, int(batch.lengths[slot])), limit)
        self._num_misses[slot] = 0 if len(match) else self._num_misses[slot] + 1
        if self._num_misses[slot] >= MISSES_BEFORE_BACKOFF:
            self._backoff_steps[slot] = min(max(2 * self._backoff_steps[slot], PROBE_INTERVAL), MAX_MISS_BACKOFF)
        return match

    def _draft_length(self, slot: int, chosen: int) -> int:
        """`chosen` draft tokens, or one as a probe where none is chosen: by a slot whose backoff has elapsed, and by
        one that has proposed nothing yet, unless nearly all drafts of earlier sequences were rejected."""
        is_first = not self._num_verified[slot]
        if chosen:
            self._backoff_steps[slot] = 1
        elif self._backoff_steps[slot] == 1 and not (is_first and self._prior_acceptance_rate >= MIN_PRIOR):
            self._backoff_steps[slot] = FIRST_REJECTION_BACKOFF if is_first else PROBE_INTERVAL
            return 0
        return max(chosen, 1)

    def _update(self, slot: int, num_drafted: int, num_accepted: int) -> None:
        # Draft tokens behind the first rejected one say nothing of the rate: their context was not the sequence's.
        for outcome in [1.0] * num_accepted + [0.0] * (num_accepted < num_drafted):
            seen = self._num_verified[slot]
            weight = FIRST_EMA_WEIGHTS[seen] if seen < len(FIRST_EMA_WEIGHTS) else EMA_WEIGHT
            self._acceptance_rates[slot] += weight * (outcome - self._acceptance_rates[slot])
            self._num_verified[slot] += 1
        self._prior_acceptance_rate += PRIOR_EMA_WEIGHT * (num_accepted / num_drafted - self._prior_acceptance_rate)
        if num_accepted:
            self._backoff_steps[slot] = 1
        elif self._backoff_steps[slot] > 1:
            self._backoff_steps[slot] = min(2 * self._backoff_steps[slot], MAX_REJECTION_BACKOFF)


def accepted_rows(draft_tokens: _Ints, token_ids: _Ints) -> NDArray[np.intp]:
    """Indices of the rows, among int64[S], that yield a token: those of a sequence up to its first rejected draft
    token. A row without a draft token behind it (-1) is the last one of its sequence."""
    accepted, is_accepted = [], True
    for row, (draft, token_id) in enumerate(zip(draft_tokens.tolist(), token_ids.tolist(), strict=True)):
        if is_accepted:
            accepted.append(row)
        is_accepted = draft < 0 or (is_accepted and draft == token_id)
    return np.array(accepted, dtype=np.intp)


def _decodes(step: Step) -> list[int]:
    """Slots of the step's decodes."""
    slots: list[int] = unpack(step.slots)[: step.num_decodes].tolist()
    return slots
