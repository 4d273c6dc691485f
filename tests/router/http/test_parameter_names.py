"""Names of parameters in messages."""

from peregrine_router.http.parameter_names import OPENAI_NAMES, RESPONSES_NAMES, first_name, names_of, renamed


def test_names_are_those_of_the_route() -> None:
    """Every route of responses has its own; other routes have those of chat completions."""
    assert names_of("/v1/responses") is names_of("/v1/responses/resp_1") is RESPONSES_NAMES
    assert names_of("/v1/chat/completions") is OPENAI_NAMES


def test_only_names_in_backticks_are_renamed() -> None:
    """Words of the sentence stay, and so do names that differ nowhere."""
    text = "`max_new_tokens` and max_new_tokens; `stop.0`"
    assert renamed(text, RESPONSES_NAMES) == "`max_output_tokens` and max_new_tokens; `stop.0`"


def test_the_first_name() -> None:
    """It is the parameter that an error is about, without the place in it."""
    assert first_name("no: `tools.0` and `input`") == "tools"
    assert first_name("nothing") is None
