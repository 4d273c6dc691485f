"""Rules that a request must satisfy. test_validator.py tests their wording and their order."""

from dataclasses import replace

import pytest

from fakes import INFO
from peregrine_router.admission.generate_parameters import MAX_TIMEOUT, GenerateParameters
from peregrine_router.admission.rules import (
    check,
    context_rules,
    length_rules,
    parse_timeout,
    token_rules,
    vocabulary_rules,
)
from peregrine_router.request import InvalidRequest
from peregrine_router.settings import Settings


def test_the_first_broken_rule_is_reported() -> None:
    """Rules that hold are skipped; those after the first broken one do not matter."""
    with pytest.raises(InvalidRequest, match=r"^second$"):
        check(iter([(False, "first"), (True, "second"), (True, "third")]))
    check(iter([(False, "first")]))


@pytest.mark.parametrize(("header", "seconds"), [("1", 1.0), ("0.25", 0.25), ("1e2", 100.0), ("86400", MAX_TIMEOUT)])
def test_timeouts(header: str, seconds: float) -> None:
    """A timeout is a decimal number of seconds, up to a day."""
    assert parse_timeout(header) == seconds


@pytest.mark.parametrize("header", ["", "0", "-1", "nan", "inf", "1_0", " 1", "\u0661", "86401"])
def test_timeouts_that_are_no_seconds(header: str) -> None:
    """Spellings that only Python reads as a number are refused, and so are times out of range."""
    with pytest.raises(InvalidRequest, match="`x-request-timeout` must be seconds"):
        parse_timeout(header)


def test_lengths_on_the_limit() -> None:
    """Prompts of max_input_tokens and totals of max_total_tokens pass; one token more does not, in either wording."""
    info = replace(INFO, max_input_tokens=4, max_total_tokens=6)
    for rules in (length_rules, context_rules):
        check(rules(4, 2, info, "inputs"))
        for prompt_length, max_new_tokens in ((4, 3), (5, 1)):
            with pytest.raises(InvalidRequest):
                check(rules(prompt_length, max_new_tokens, info, "inputs"))


def test_a_prompt_that_fills_the_context_leaves_no_room() -> None:
    """Without `max_tokens` a prompt as long as the context is told that one token more would be generated."""
    with pytest.raises(InvalidRequest, match=r"context length is 6 tokens\. However, you requested 7 tokens"):
        check(context_rules(6, 0, replace(INFO, max_input_tokens=5, max_total_tokens=6), "prompt"))


def test_ids_beyond_the_vocabulary() -> None:
    """The largest valid id is vocab_size - 1, in prompts, `logit_bias` and `stop_token_ids`."""
    info = replace(INFO, vocab_size=8)
    check(vocabulary_rules([7], info))
    check(token_rules(GenerateParameters(logit_bias={"7": 1.0}, stop_token_ids=[7]), 1, Settings(), info))
    with pytest.raises(InvalidRequest):
        check(vocabulary_rules([8], info))
    for given in (GenerateParameters(logit_bias={"8": 1.0}), GenerateParameters(stop_token_ids=[8])):
        with pytest.raises(InvalidRequest, match="names token 8; the vocabulary has 8"):
            check(token_rules(given, 1, Settings(), info))
