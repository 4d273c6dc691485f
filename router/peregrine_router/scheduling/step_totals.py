"""Totals over all steps since the start."""

from dataclasses import dataclass

from peregrine_router.scheduling.step_builder import StepBuilder


@dataclass(slots=True)
class StepTotals:
    """Counts of what steps computed, added up as they are sent."""

    steps: int = 0
    """Steps that computed anything."""
    tokens: int = 0
    """Tokens computed, drafts aside."""
    budget: int = 0
    """Tokens that these steps could have computed, by the limits that held for them."""
    context: int = 0
    """Tokens whose keys and values were read: for each of a step's sequences, those computed with it."""

    def add(self, builder: StepBuilder) -> None:
        """Counts a step, whose tokens count as computed by now."""
        num_tokens = sum(builder.num_tokens)
        self.steps += 1
        self.tokens += num_tokens
        self.budget += num_tokens + max(builder.budget, 0)
        self.context += sum([sequence.num_computed for sequence in builder.scheduled])
