"""Answers that a small model can be held to: every text is bounded, so that each ends within a few dozen tokens."""

from typing import Annotated, Literal

from pydantic import BaseModel, Field

CHAT = "Tell me about the weather in London."
PROMPT = "It was a fine morning, and"
ENDS = {"min_tokens": 8, "logit_bias": {"0": 100}}
"""Fields that end an answer after 8 tokens with the demo's end of text, for clients that take no cut-off answer."""
Word = Annotated[str, Field(max_length=12)]


class Weather(BaseModel):
    """The weather of a city."""

    city: Word
    unit: Literal["C", "F"]
    degrees: Annotated[int, Field(ge=-50, le=50)]
    rains: bool


class Forecast(BaseModel):
    """The weather of some days."""

    days: Annotated[list[Weather], Field(min_length=1, max_length=2)]
    next: Weather | None
