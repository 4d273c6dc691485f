"""A request on its way through the scheduler, and the groups that compute one prompt together."""

from collections.abc import Container, Iterator
from dataclasses import dataclass, field

from peregrine_router.request import FinishReason, Request
from peregrine_router.scheduling.prefix_cache import block_hash, root_hash


@dataclass(slots=True, eq=False)
class Sequence:
    """A request's tokens so far, and what the shards hold of it."""

    request: Request
    token_ids: list[int]
    """Prompt and generated."""
    max_total: int = field(init=False)
    """Tokens of prompt and answer at most: where those in flight reach it, no other step works on the sequence."""
    slot: int = -1
    """Row of the shards' batch; -1 while it waits."""
    blocks: list[int] = field(default_factory=list)
    num_exclusive_tokens: int = 0
    """Tokens for which its blocks have places that no other shares: so many at least, and decodes need not ask."""
    num_computed: int = 0
    """Tokens whose K and V are in the cache once every step sent so far has run: so many at least, if steps in flight
    may guess tokens."""
    num_pending: int = 0
    """Tokens that the steps in flight sample for it, as many at least: the shards will know them, the router does not
    yet."""
    num_draft_in_flight: int = 0
    """How many more the steps in flight sample at most, by guesses that are right."""
    num_prefix_hit_tokens: int | None = None
    """Tokens of the prompt that were in the cache when it was first admitted; None before."""
    block_hashes: list[bytes] = field(default_factory=list)
    """Of its first full blocks, as far as they were asked for."""
    num_cached_blocks: int = 0
    """Of its blocks, those that the cache was told of."""
    virtual_deadline: int = 0
    """By when its prompt should have been computed (see fairness.py): of prompts, the one that is due first goes on."""
    finish_reason: FinishReason | None = None
    is_cancelled: bool = False
    prompt_owner: "Sequence | None" = None
    """Who computes this sequence's prompt as well; None for a prompt_owner, and once forked."""
    siblings: list["Sequence"] = field(default_factory=list)
    """Who will fork from this sequence when its prompt is computed: in no queue, without a slot or blocks."""

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
        """Why the last of its tokens is the last at all; None if it is not."""
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
        """Of its full blocks start..stop, each computed once."""
        known, tokens = self.block_hashes, self.token_ids
        for at in range(start, stop):
            if at == len(known):
                parent = known[-1] if known else root_hash(self.request.cache_salt, self.request.adapter)
                known.append(block_hash(parent, tokens[at * block_size : (at + 1) * block_size]))
            yield known[at]

    def adopt_siblings(self, siblings: list["Sequence"]) -> None:
        """Computes the prompt for them as well."""
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
