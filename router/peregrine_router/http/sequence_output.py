"""The tokens of a request's sequences: collected into whole sequences, or merged into one stream."""

import asyncio
from collections.abc import AsyncGenerator, AsyncIterator, Sequence
from dataclasses import dataclass, field

from peregrine_router.request import Finished, Request, Token, TokenEvent

EventBatch = tuple[int, list[TokenEvent]]
"""Number of a sequence, and its events since the last batch: several if the reader took longer than a step."""
MAX_BATCHES_AHEAD = 16
"""Batches of all sequences that wait to be sent; further ones stay in the engine."""


@dataclass(slots=True)
class SequenceOutput:
    """One whole sequence."""

    request: Request
    tokens: list[Token] = field(default_factory=list)
    top_tokens: list[tuple[Token, ...]] = field(default_factory=list)
    prefill: tuple[Token, ...] = ()
    prefill_top: tuple[tuple[Token, ...], ...] = ()
    finished: Finished | None = None

    def add(self, event: TokenEvent) -> None:
        """Appends one token."""
        self.tokens.append(event.token)
        self.top_tokens.append(event.top_tokens)
        self.prefill = event.prefill or self.prefill
        self.prefill_top = event.prefill_top or self.prefill_top
        self.finished = event.finished

    @property
    def end(self) -> Finished:
        """How the sequence ended; set once it is collected."""
        assert self.finished is not None
        return self.finished

    @property
    def mean_logprob(self) -> float:
        """Mean log-probability of its tokens: `best_of` ranks by it."""
        return sum(token.logprob or 0.0 for token in self.tokens) / max(len(self.tokens), 1)


async def collect(request: Request, batches: AsyncIterator[EventBatch]) -> SequenceOutput:
    """One sequence in full."""
    output = SequenceOutput(request)
    async for _, events in batches:
        for event in events:
            output.add(event)
    return output


async def merge(sources: Sequence[AsyncIterator[EventBatch]]) -> AsyncGenerator[EventBatch, None]:
    """The batches of all sequences in the order in which they come. Raises the first error of any."""
    queue: asyncio.Queue[EventBatch | Exception] = asyncio.Queue(MAX_BATCHES_AHEAD)

    async def forward(source: AsyncIterator[EventBatch]) -> None:
        try:
            async for batch in source:
                await queue.put(batch)
        except Exception as error:
            await queue.put(error)

    tasks = [asyncio.create_task(forward(source)) for source in sources]
    remaining = len(tasks)
    try:
        while remaining:
            item = await queue.get()
            if isinstance(item, Exception):
                raise item
            remaining -= item[1][-1].finished is not None
            yield item
    finally:
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
