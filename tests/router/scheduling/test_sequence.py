"""Sequences: how they end, and groups of one prompt."""

from dataclasses import replace

from fake_shards import FakeModel, next_token, submit
from peregrine_router.request import FinishReason, Request, SamplingParams
from peregrine_router.scheduling.sequence import Sequence, prompt_key
from peregrine_server.protocol import Grammar
from schedulers import BLOCK_SIZE, NUM_BLOCKS, generated, make_group, make_request, make_scheduler, run_to_end


def test_an_end_token_ends_the_text_unless_ignored() -> None:
    """eos_token is the reason when the model ends its text; ignore_eos goes on to the length."""
    eos = next_token([9])
    for ignore, reason, count in [(False, FinishReason.EOS_TOKEN, 1), (True, FinishReason.LENGTH, 4)]:
        scheduler = make_scheduler(eos=frozenset({eos}))
        sequence = submit(scheduler, Request("a", (9,), SamplingParams(), 4, ignore_eos=ignore))
        run_to_end(scheduler, FakeModel(NUM_BLOCKS, BLOCK_SIZE))
        assert sequence.finish_reason is reason
        assert len(generated(sequence)) == count


def test_a_stop_token_ends_the_text() -> None:
    """stop_sequence is the reason when a token of the client's own choice ends it, end of text or not."""
    stop = next_token([9])
    scheduler = make_scheduler(eos=frozenset({stop}))
    request = Request("a", (9,), SamplingParams(), 4, ignore_eos=True, stop_token_ids=frozenset({stop}))
    sequence = submit(scheduler, request)
    run_to_end(scheduler, FakeModel(NUM_BLOCKS, BLOCK_SIZE))
    assert sequence.finish_reason is FinishReason.STOP_SEQUENCE
    assert len(generated(sequence)) == 1


def test_a_complete_grammar_ends_the_text_even_if_ends_are_ignored() -> None:
    """Once nothing but the end is allowed, ignore_eos cannot make the text go on."""
    eos = next_token([9])
    scheduler = make_scheduler(eos=frozenset({eos}))
    sampling = SamplingParams(grammar=Grammar("regex", "a"))
    sequence = submit(scheduler, Request("a", (9,), sampling, 4, ignore_eos=True))
    run_to_end(scheduler, FakeModel(NUM_BLOCKS, BLOCK_SIZE))
    assert sequence.finish_reason is FinishReason.EOS_TOKEN


def test_the_first_sibling_becomes_the_prompt_owner() -> None:
    """When a prompt owner leaves, the next in its group computes the prompt for the others, by the same deadline."""
    owner, *siblings = (Sequence(request, [1, 2]) for request in make_group([1, 2], [1] * 3))
    owner.adopt_siblings(siblings)
    owner.virtual_deadline = 7
    assert owner.promote_sibling() is siblings[0]
    assert (owner.siblings, siblings[0].siblings) == ([], siblings[1:])
    assert [sibling.prompt_owner for sibling in siblings] == [None, siblings[0]]
    assert siblings[0].virtual_deadline == 7


def test_a_sequence_without_siblings_promotes_none() -> None:
    """A single request leaves nothing behind."""
    assert Sequence(make_request("a", [1], 1), [1]).promote_sibling() is None


def test_one_computation_serves_requests_of_one_prompt_tenant_and_adapter() -> None:
    """Requests that differ in anything that K and V, or who may see them, depend on are never in one group."""
    request = make_request("a", [1, 2], 5)
    assert prompt_key(request) == prompt_key(make_request("b", [1, 2], 9, seed=3))
    scored = SamplingParams(prompt_logprobs=True)
    others = [
        replace(request, prompt_ids=(2, 1)),
        replace(request, cache_salt=b"other"),
        replace(request, adapter="other"),
        replace(request, sampling=scored),
    ]
    assert len({prompt_key(each) for each in (request, *others)}) == 5
