"""Whether a result answers its step: a shard that answers wrongly must end the server, not hang a request."""

from array import array

from peregrine_router.scheduling.in_flight import StepInFlight
from peregrine_server.protocol import StepResult


class WrongResult(RuntimeError):
    """The shards' answer does not fit the step; the message is one line for the operator."""


def check_result(oldest: StepInFlight, result: StepResult, vocab_size: int) -> None:
    """Raises WrongResult unless each sequence that was to gain a token did, and no other, with tokens that exist."""
    if len(result.slots) % 4 or len(result.token_ids) != len(result.slots):
        raise WrongResult(f"the shards answered step {oldest.step.id} with other counts of slots than of tokens")
    if len(result.logprobs) not in (0, len(result.slots)):
        raise WrongResult(f"the shards answered step {oldest.step.id} with other counts of log-probabilities")
    # For a few numbers an array takes a third of numpy's time.
    slots, ids = array("i", result.slots), array("i", result.token_ids)
    most = len(oldest.sampled) * (1 + oldest.step.max_draft_tokens)
    if set(slots) != oldest.sampled or len(slots) > most:
        raise WrongResult(f"the shards answered step {oldest.step.id} for slots that it did not sample, or not for all")
    if ids and not (min(ids) >= 0 and max(ids) < vocab_size) and _unknown(slots, ids, vocab_size, result):
        raise WrongResult(f"the shards answered step {oldest.step.id} with tokens outside of the vocabulary")
    if not 0 <= result.num_draft_tokens <= oldest.step.num_decodes * oldest.step.max_draft_tokens:
        raise WrongResult(f"the shards answered step {oldest.step.id} with draft tokens that it did not allow")
    if result.top_tokens or result.prompt_logprobs:
        _check_scores(oldest, result, vocab_size)


def _check_scores(oldest: StepInFlight, result: StepResult, vocab_size: int) -> None:
    """Raises WrongResult unless the likeliest tokens exist, each with a log-probability, of rows that exist."""
    num_rows = len(result.token_ids) // 4
    are_right = all(
        0 <= top.row < num_rows and _are_tokens(top.token_ids, top.logprobs, vocab_size) for top in result.top_tokens
    ) and all(
        len(chunk.logprobs) % 4 == 0
        and (not chunk.top_token_ids or (chunk.logprobs and len(chunk.top_token_ids) % len(chunk.logprobs) == 0))
        and _are_tokens(chunk.top_token_ids, chunk.top_logprobs, vocab_size)
        for chunk in result.prompt_logprobs
    )
    if not are_right:
        raise WrongResult(f"the shards answered step {oldest.step.id} with log-probabilities of no tokens")


def _are_tokens(token_ids: bytes, logprobs: bytes, vocab_size: int) -> bool:
    if len(token_ids) % 4 or len(logprobs) != len(token_ids):
        return False
    ids = array("i", token_ids)
    return not ids or (min(ids) >= 0 and max(ids) < vocab_size)


def _unknown(slots: "array[int]", ids: "array[int]", vocab_size: int, result: StepResult) -> set[int]:
    """The slots with tokens outside of the vocabulary; where a sequence has failed, its token is none."""
    unknown = {slot for slot, id in zip(slots, ids, strict=True) if not 0 <= id < vocab_size}
    return unknown - {failure.slot for failure in result.failed}
