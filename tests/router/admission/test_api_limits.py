"""Limits where TGI's defaults and OpenAI's differ."""

from dataclasses import fields

from peregrine_router.admission.api_limits import OPENAI_LIMITS, TGI_LIMITS, ApiLimits, api_limits, set_by
from peregrine_router.settings import Settings


def test_defaults_are_those_of_the_api() -> None:
    """Without options, TGI's routes have the limits of TGI's launcher and OpenAI's those of OpenAI."""
    assert api_limits(Settings(), is_tgi=True) == TGI_LIMITS == ApiLimits(2, 5, 4)
    assert api_limits(Settings(), is_tgi=False) == OPENAI_LIMITS == ApiLimits(128, 20, 2048)


def test_an_option_sets_the_limit_of_both() -> None:
    """The operator's value holds on all routes, 0 included; each limit has the name of its option."""
    settings = Settings(max_best_of=7, max_top_n_tokens=0)
    for is_tgi in (True, False):
        limits = api_limits(settings, is_tgi=is_tgi)
        assert (limits.max_best_of, limits.max_top_n_tokens) == (7, 0)
    assert {field.name for field in fields(ApiLimits)} <= Settings.model_fields.keys()


def test_a_refusal_names_the_flag() -> None:
    """Spelt as on the command line."""
    assert set_by("max_best_of") == "; the operator sets this by --max-best-of"
