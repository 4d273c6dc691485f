"""Sequences: requests on their way through the scheduler, and the groups that compute one prompt together."""

from collections.abc import Container, Iterator
from dataclasses import dataclass, field

from peregrine_router.request import FinishReason, Request
from peregrine_router.scheduling.prefix_cache import block_hash, root_hash


@dataclass(slots=True, eq=False)
class Sequence:
    """A request's tokens so far, and the state that the shards keep for it."""

    request: Request
    token_ids: list[int]
    """Prompt and generated."""
    max_total: int = field(init=False)
    """Maximum length, prompt included. Once the tokens in flight reach it, no further step computes the sequence."""
    slot: int = -1
    """Row of the shards' batch; -1 while it waits."""
    blocks: list[int] = field(default_factory=list)
    num_exclusive_tokens: int = 0
    """Lower bound on the token positions in blocks that only this sequence owns. A decode below it needs neither
    allocation nor copy-on-write."""
    num_computed: int = 0
    """Tokens whose K and V are in the cache once every step sent so far has run (a lower bound if they speculate)."""
    num_pending: int = 0
    """Tokens that steps in flight will sample (a lower bound if they speculate). The shards have them on the device
    before the router receives them."""
    num_draft_in_flight: int = 0
    """Draft tokens that steps in flight may accept in addition, at most."""
    num_prefix_hit_tokens: int | None = None
    """Tokens of the prompt that were in the cache when it was first admitted; None before."""
    block_hashes: list[bytes] = field(default_factory=list)
    """Hashes of its first full blocks, computed on demand."""
    num_cached_blocks: int = 0
    """Number of its first blocks that have been added to the prefix cache, or come from it."""
    virtual_deadline: int = 0
    """Set by the queue (see `FairQueue`). Prompts that are being computed take turns by it, the smallest first."""
    finish_reason: FinishReason | None = None
    is_cancelled: bool = False
    prompt_owner: "Sequence | None" = None
    """The sequence that computes the prompt for this one; None for a prompt owner, and after the fork."""
    siblings: list["Sequence"] = field(default_factory=list)
    """Sequences that fork from this one when its prompt is computed; until then without queue, slot and blocks."""

    def __post_init__(self) -> None:
        self.max_total = len(self.request.prompt_ids) + self.request.max_new_tokens

    @property
    def num_generated(self) -> int:
        return len(self.token_ids) - len(self.request.prompt_ids)

    @property
    def num_known(self) -> int:
        """Tokens that the shards know once every step sent so far has run."""
        return len(self.token_ids) + self.num_pending

    @property
    def is_done(self) -> bool:
        return self.is_cancelled or self.finish_reason is not None

    def reason_to_end(self, token_id: int, eos_token_ids: Container[int]) -> FinishReason | None:
        """Why the sequence ends with `token_id`, which was just appended; None if it goes on."""
        request = self.request
        # TGI's order: at the last allowed token the reason is "length", even if that token ends the text.
        if len(self.token_ids) >= self.max_total:
            return FinishReason.LENGTH
        if token_id in request.stop_token_ids:
            return FinishReason.STOP_SEQUENCE
        # A grammar that is complete allows nothing but the end, so there it cannot be ignored.
        if token_id in eos_token_ids and not (request.ignore_eos and request.sampling.grammar is None):
            return FinishReason.EOS_TOKEN
        return None

    def hashes(self, block_size: int, start: int, stop: int) -> Iterator[bytes]:
        """The hashes of its full blocks from `start` up to `stop`, each computed once."""
        known, tokens = self.block_hashes, self.token_ids
        for at in range(start, stop):
            if at == len(known):
                parent = known[-1] if known else root_hash(self.request.cache_salt, self.request.adapter)
                known.append(block_hash(parent, tokens[at * block_size : (at + 1) * block_size]))
            yield known[at]

    def adopt_siblings(self, siblings: list["Sequence"]) -> None:
        """Makes this sequence the prompt owner of `siblings`."""
        self.prompt_owner, self.siblings = None, siblings
        for sibling in siblings:
            sibling.prompt_owner = self

    def promote_sibling(self) -> "Sequence | None":
        """Makes the first sibling the prompt owner of the others, and returns it; None if there are no siblings."""
        if not self.siblings:
            return None
        successor, *others = self.siblings
        self.siblings = []
        successor.virtual_deadline = self.virtual_deadline
        successor.adopt_siblings(others)
        return successor

    def check_integrity(self, block_size: int) -> None:
        """Raises AssertionError unless the counts of a running sequence agree with each other and its blocks."""
        assert self.num_computed <= self.num_known, "more tokens computed than there are"
        assert self.num_cached_blocks * block_size <= min(self.num_computed, len(self.token_ids)), (
            "a block can be found before its tokens are known and sent"
        )
        most = min(self.num_computed + self.num_draft_in_flight, self.max_total)
        assert len(self.blocks) * block_size >= max(most, self.num_exclusive_tokens), "tokens lie outside the blocks"


def prompt_key(request: Request) -> tuple[tuple[int, ...], bool, bytes, str]:
    """The part of requests that must be equal for one computation of the prompt to serve them all."""
    return request.prompt_ids, request.sampling.prompt_logprobs, request.cache_salt, request.adapter
