"""Constrained generation with the demo model: texts follow their grammars, and other sequences are unaffected."""

import json
import re
import threading
import time
from typing import Any

import numpy as np
import pytest
from jsonschema import Draft202012Validator
from llguidance import LLParserLimits

from fake_shards import submit
from peregrine_router.launch.model_files import demo_path
from peregrine_router.request import FinishReason, Request, SamplingParams
from peregrine_router.scheduling.sequence import Sequence
from peregrine_router.text.tokenizer import Tokenizer
from peregrine_server.execution.runner import Runner
from peregrine_server.protocol import Grammar, NewSequence, Step, pack
from peregrine_server.sampling.sampled import Sampled
from peregrine_server.structured import compiler
from peregrine_server.structured import masks as masks_module
from peregrine_server.structured.masks import GrammarMasks
from runners import generated, load_runner, make_scheduler, run, run_step
from schemas import random_schema

pytestmark = pytest.mark.slow

EOS = 0
TOKENIZER = Tokenizer.load(demo_path())
PROMPT = tuple(TOKENIZER.encode("Once upon a time there was a"))
WORDS = Grammar("regex", "([a-z]{2,7} ){5,8}end")


@pytest.fixture(scope="module")
def runner() -> Runner:
    return load_runner(
        demo_path(), max_batch_size=40, max_total_tokens=192, max_batch_total_tokens=40 * 192, eos_token_ids=(EOS,)
    )


def scheduler(num_blocks: int = 40 * 24) -> Any:
    return make_scheduler(num_blocks, max_step_tokens=256, max_batch_size=40, eos=frozenset({EOS}))


def make_request(name: str, grammar: Grammar | None, count: int = 150, **sampling: Any) -> Request:
    return Request(name, PROMPT, SamplingParams(grammar=grammar, **sampling), count)


def text(sequence: Sequence) -> str:
    return TOKENIZER.decode(generated(sequence))


def test_every_finished_output_of_200_random_schemas_validates(runner: Runner) -> None:
    """Greedy and sampled, 40 in a batch; four in five finish before their length ends them."""
    requests, schemas = [], [random_schema(seed) for seed in range(200)]
    for i, schema in enumerate(schemas):
        sampling: dict[str, Any] = {"do_sample": True, "seed": i, "temperature": 1.5} if i % 2 == 0 else {}
        requests.append(make_request(str(i), Grammar("json_schema", json.dumps(schema)), **sampling))
    sequences = run(runner, scheduler(), requests)
    finished = [sequence.finish_reason is FinishReason.EOS_TOKEN for sequence in sequences]
    assert sum(finished) > 160
    for schema, sequence, is_finished in zip(schemas, sequences, finished, strict=True):
        if is_finished:
            Draft202012Validator(schema).validate(json.loads(text(sequence)))


@pytest.mark.parametrize(
    ("grammar", "pattern"),
    [
        (Grammar("regex", "[0-9]{3}-[a-z]{4}"), "[0-9]{3}-[a-z]{4}"),
        (
            Grammar("lark", 'start: a ("," a)~2\na: "fox" | /[ab]{2}[0-9]/'),
            "(fox|[ab]{2}[0-9])(,(fox|[ab]{2}[0-9])){2}",
        ),
        (Grammar("regex", "\U0001f98a{2}é?"), "\U0001f98a{2}é?"),
    ],
)
@pytest.mark.parametrize("ignores_eos", [False, True])
def test_the_text_matches_and_ends_when_complete(
    grammar: Grammar, pattern: str, ignores_eos: bool, runner: Runner
) -> None:
    """Regular expressions, Lark, bytes of characters that no token holds whole; the end cannot be ignored."""
    request = Request("a", PROMPT, SamplingParams(grammar=grammar, do_sample=True, seed=4), 100, ignore_eos=ignores_eos)
    (sequence,) = run(runner, scheduler(), [request])
    assert re.fullmatch(pattern, text(sequence))
    assert sequence.finish_reason is FinishReason.EOS_TOKEN


def test_min_tokens_holds_as_long_as_the_grammar_goes_on(runner: Runner) -> None:
    """The end is forbidden while the grammar allows another token, and is sampled where it does not."""
    for source, count in [("(a|b)+", 12), ("(a|b){3}", None)]:
        sampling: dict[str, Any] = {"min_tokens": 12, "end_token_ids": (EOS,), "logit_bias": ((EOS, 100.0),)}
        (sequence,) = run(runner, scheduler(), [make_request("a", Grammar("regex", source), **sampling)])
        assert sequence.finish_reason is FinishReason.EOS_TOKEN
        assert len(generated(sequence)) - 1 == (count or len(generated(sequence)) - 1)
        assert re.fullmatch(source, text(sequence))


def test_unconstrained_sequences_of_the_batch_get_the_same_tokens(runner: Runner) -> None:
    """With and without constrained sequences beside them."""
    free = [make_request(str(i), None, 40, do_sample=i > 1, seed=i) for i in range(4)]
    bound = [make_request(f"bound-{i}", WORDS, do_sample=True, seed=i) for i in range(4)]
    alone = [generated(sequence) for sequence in run(runner, scheduler(), free)]
    mixed = [request for pair in zip(free, bound, strict=True) for request in pair]
    together = run(runner, scheduler(), mixed)
    assert [generated(sequence) for sequence in together[::2]] == alone
    assert all(re.fullmatch(WORDS.source, text(sequence)) for sequence in together[1::2])


def test_a_preempted_sequence_resumes_its_grammar(runner: Runner) -> None:
    """Recomputed from its prompt and tokens, each ends with the text that it has alone."""
    requests = [make_request(str(i), WORDS, 60, do_sample=True, seed=i) for i in range(6)]
    alone = [generated(run(runner, scheduler(), [request])[0]) for request in requests]
    squeezed = scheduler(num_blocks=12)
    assert [generated(sequence) for sequence in run(runner, squeezed, requests)] == alone
    assert squeezed.num_preemptions > 0


def test_forks_follow_the_grammar_apart(runner: Runner) -> None:
    """Each member of a group has the text that it has alone, with one grammar for all or different ones."""
    other = Grammar("regex", "[0-9]{20}")
    for grammars in ([WORDS] * 4, [WORDS, other, None, WORDS]):
        requests = [make_request(str(i), g, 40, do_sample=True, seed=i) for i, g in enumerate(grammars)]
        alone = [generated(run(runner, scheduler(), [request])[0]) for request in requests]
        forking = scheduler()
        group = forking.submit_group(requests)
        while run_step(runner, forking) is not None:
            pass
        assert [generated(sequence) for sequence in group] == alone


@pytest.mark.parametrize("source", ["([", "\udfff", "(a|b){1,9999}" * 6000])
def test_a_grammar_that_fails_on_the_shard_fails_its_request_alone(source: str, runner: Runner) -> None:
    """If one gets past the router, its sequence is reported as failed and the others go on."""
    mixed = scheduler()
    bad = submit(mixed, make_request("bad", Grammar("regex", source), 5))
    good = submit(mixed, make_request("good", None, 5))
    step = mixed.schedule()
    assert step is not None
    result = runner.execute(step)
    assert [failed.slot for failed in result.failed] == [bad.slot]
    assert result.failed[0].message.startswith("the grammar cannot be followed: ")
    assert "\n" not in result.failed[0].message
    mixed.cancel(bad)
    mixed.commit(result)
    while run_step(runner, mixed) is not None:
        pass
    assert generated(good) == generated(run(runner, scheduler(), [good.request])[0])


def test_a_dead_end_fails_its_sequence() -> None:
    """Broken JSON does not end with the end of text: after the comma, the only property left has its name taken."""
    schema = {"properties": {"ab": {"const": 1}}, "patternProperties": {"^ab$": {"const": 1}}, "required": ["ab"]}
    grammar = Grammar("json_schema", json.dumps({"type": "object", **schema, "additionalProperties": False}))
    grammar_masks = GrammarMasks(demo_path(), 4096, (EOS,))
    generated = TOKENIZER.encode('{"ab":1, ')
    grammar_masks.apply(Step(0, new=[NewSequence(3, pack([5, *generated]), 1, SamplingParams(grammar=grammar))]))
    _, failed = grammar_masks.masks(np.array([3]))
    assert [each.slot for each in failed] == [3]
    assert "the grammar cannot be followed" in failed[0].message


def test_a_grammar_too_costly_to_follow_fails_its_request(monkeypatch: pytest.MonkeyPatch) -> None:
    """A sequence whose masks keep steps waiting fails, because the whole batch waits with it."""
    monkeypatch.setattr(masks_module, "MAX_WAIT_SECONDS", -1.0)
    grammar_masks = GrammarMasks(demo_path(), 4096, (EOS,))
    grammar_masks.apply(Step(0, new=[NewSequence(3, pack([5]), 1, SamplingParams(grammar=WORDS))]))
    allowed, failed = grammar_masks.masks(np.array([3]))
    assert "too complex" in failed[0].message
    assert allowed.shape == (1, 4096)


class SlowCopy:
    """A `DeviceToHostCopier` and its `PendingCopy` in one, of a slow device: every wait is for `arrived`."""

    def __init__(self) -> None:
        self.arrived = threading.Event()
        self.is_done = False

    def start(self, sampled: Sampled) -> "SlowCopy":
        self.sampled = sampled
        return self

    def wait(self) -> Sampled:
        assert self.arrived.wait(30)
        return self.sampled


def test_a_step_with_a_grammar_is_launched_before_its_token_is_copied(monkeypatch: pytest.MonkeyPatch) -> None:
    """Only the next mask waits for the copy. That wait does not count against the grammar."""
    monkeypatch.setattr(masks_module, "MAX_WAIT_SECONDS", 0.2)
    monkeypatch.setattr(masks_module, "FREE_WAIT_SECONDS", 0.0)
    runner, copy = load_runner(demo_path(), eos_token_ids=(EOS,)), SlowCopy()
    monkeypatch.setattr(runner, "_copier", copy)
    planner = scheduler(num_blocks=192)
    submit(planner, make_request("a", Grammar("regex", "fox|dog"), 5))
    step = planner.schedule()
    assert step is not None
    pending = runner.launch(step)
    assert not pending.is_done
    timer = threading.Timer(0.5, copy.arrived.set)
    timer.start()
    start = time.perf_counter()
    allowed, failed = runner._grammar_masks.masks(np.array([0]))
    assert time.perf_counter() - start > 0.4
    timer.join()
    assert not failed
    first = TOKENIZER.decode([int(copy.sampled.token_ids[0])])
    following = [TOKENIZER.decode([token_id]) for token_id in allowed[0].nonzero()[0].tolist()]
    assert following
    assert all("fox".startswith(first + each) or "dog".startswith(first + each) for each in following)


def test_a_freed_slot_drops_its_grammar() -> None:
    """The next sequence in the slot is unconstrained, and no grammar is left."""
    grammar_masks = GrammarMasks(demo_path(), 4096, (EOS,))
    grammar_masks.apply(Step(0, new=[NewSequence(3, pack([5]), 1, SamplingParams(grammar=WORDS))]))
    assert grammar_masks.has_any()
    grammar_masks.apply(Step(1, freed=pack([3]), new=[NewSequence(3, pack([5]), 1, SamplingParams())]))
    assert not grammar_masks.has_any()


NTH_FROM_THE_END = Grammar("regex", "[ab]*a[ab]{60}")
"""A grammar whose lexer has a state for every text of 60 letters."""


def follow(grammar_masks: GrammarMasks, slot: int, count: int) -> list[str]:
    """Errors of a sequence that takes `count` random tokens of `NTH_FROM_THE_END`."""
    random = np.random.default_rng(slot)
    slots, sampling = np.array([slot]), SamplingParams(grammar=NTH_FROM_THE_END)
    grammar_masks.apply(Step(slot, new=[NewSequence(slot, pack([5]), 1, sampling)]))
    for _ in range(count):
        allowed, failed = grammar_masks.masks(slots)
        if failed:
            return [each.message for each in failed]
        token_id = int(random.choice(allowed[0, 1:].nonzero()[0])) + 1  # not the end of text
        grammar_masks.advance(slots, lambda token_id=token_id: [token_id])  # type: ignore[misc]
    return []


def test_a_sequence_fails_by_its_own_states_alone(monkeypatch: pytest.MonkeyPatch) -> None:
    """Sequences of a grammar share its lexer and the limit on its states; each is followed as it would be alone."""
    monkeypatch.setattr(compiler, "LIMITS", LLParserLimits(max_lexer_states=400, verbose_errors=False))
    grammar_masks = GrammarMasks(demo_path(), 4096, (EOS,))
    assert [follow(grammar_masks, slot, 10) for slot in range(20)] == [[]] * 20
    (error,) = follow(grammar_masks, 20, 500)
    assert error.startswith("the grammar cannot be followed: lexer error: too many states")
    assert follow(grammar_masks, 21, 10) == []


def test_the_cache_of_compiled_grammars_is_bounded_in_bytes() -> None:
    """As many as fit, were each as large as its limits allow."""
    assert masks_module.MAX_COMPILED * compiler.MAX_GRAMMAR_MEMORY <= masks_module.MAX_COMPILED_BYTES
    assert masks_module.MAX_COMPILED >= 8


def test_the_cache_of_compiled_grammars_is_bounded(monkeypatch: pytest.MonkeyPatch) -> None:
    """The least recently used grammar is evicted."""
    monkeypatch.setattr(masks_module, "MAX_COMPILED", 2)
    grammar_masks = GrammarMasks(demo_path(), 4096, (EOS,))
    for slot, source in enumerate(["a", "b", "a", "c"]):
        grammar = SamplingParams(grammar=Grammar("regex", source))
        grammar_masks.apply(Step(slot, new=[NewSequence(slot, pack([5]), 1, grammar)]))
        grammar_masks.masks(np.array([slot]))
    assert [grammar.source for grammar in grammar_masks._compiled] == ["a", "c"]
