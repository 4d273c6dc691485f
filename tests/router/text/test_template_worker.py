"""The environment of chat templates, and the errors that they raise."""

import pytest
from transformers.utils.chat_template_utils import render_jinja_template

from peregrine_router.text import template_worker
from peregrine_router.text.template_worker import CANNOT, Refusal, environment, guarded, render


def text(template: str, **variables: object) -> str:
    return render(environment().from_string(template), variables)


def test_templates_have_what_transformers_gives_them() -> None:
    """Blocks leave no line, loops can be left, JSON is not escaped for HTML, and `strftime_now` knows the year."""
    assert text("{% if true %}\n  a\n{% endif %}\nb") == "  a\nb"
    assert text("{% for i in range(9) %}{% if i == 2 %}{% break %}{% endif %}{{ i }}{% endfor %}") == "01"
    assert text("{{ value | tojson }}", value={"é": "<&>"}) == '{"é": "<&>"}'
    assert len(text("{{ strftime_now('%Y') }}")) == 4


MESSAGES = [{"role": "user", "content": "é <b> & 'q'"}, {"role": "assistant", "content": " a "}]


@pytest.mark.parametrize(
    "template",
    [
        "{% for m in messages %}{% generation %}{{ m.content }}{% endgeneration %}|{% endfor %}",
        "{% for m in messages %}\n  {%- generation -%}\n {{ m.content | trim }}\n {%- endgeneration %}\n{% endfor %}",
        "{% set x = 1 %}{% generation %}{% set x = 2 %}{{ x }}{% endgeneration %}{{ x }}",
        "{{ messages | tojson(indent=2) }}",
        "{{ messages | tojson(True) }}",
        "{{ messages | tojson(ensure_ascii=True, separators=(',', ':'), sort_keys=True) }}",
        "{{ messages | tojson(false, 1, [', ', '='], true) }}",
        "{{ {'b': none, 'a': [1.5, true]} | tojson(sort_keys=True, indent='\t') }}",
        "{{ dict(a=1) | tojson }}{% set n = namespace(i=0) %}{% set n.i = 3 %}{{ n.i }}{{ documents is none }}",
        "{{ tools is none }}{{ bos_token is defined }}{{ messages | map(attribute='role') | join(',') }}",
        "{{ strftime_now('%Y-%m-%d') }}",
    ],
)
def test_templates_render_as_in_transformers(template: str) -> None:
    """Blocks, filters and functions of transformers' templates give its text, whatever their arguments."""
    oracle = render_jinja_template([MESSAGES], chat_template=template)[0][0]
    assert text(template, messages=MESSAGES, tools=None, documents=None) == oracle


def test_a_long_text_is_refused_as_it_grows(monkeypatch: pytest.MonkeyPatch) -> None:
    """The limit counts characters, and is named."""
    monkeypatch.setattr(template_worker, "MAX_OUTPUT_CHARACTERS", 10)
    assert text("{{ 'a' * 10 }}") == "a" * 10
    with pytest.raises(Refusal, match="more than 10 characters"):
        text("{% for i in range(11) %}a{% endfor %}")


def test_every_error_of_a_template_becomes_an_answer() -> None:
    """The template's own words, or a plain sentence whose reason is for the log."""

    def fails(error: Exception) -> dict[str, str]:
        def work() -> dict[str, str]:
            raise error

        return guarded(work)

    assert fails(Refusal("no")) == {"error": "no"}
    assert fails(ZeroDivisionError()) == {"error": CANNOT, "detail": "ZeroDivisionError: "}
    assert fails(MemoryError()) == {"error": "the template takes too much memory"}


def test_nothing_is_computed_while_a_template_is_compiled() -> None:
    """The limits are those of a rendering, and what a chat does not reach costs it nothing."""
    assert text("{% if false %}{{ 9 ** 9 ** 9 }}{{ 10 ** 99999 }}{% endif %}{{ 2 ** 3 + 1 }}") == "9"


def test_what_is_no_utf_8_is_no_text() -> None:
    """A tokenizer cannot read it, nor a client the error."""
    with pytest.raises(Refusal, match="surrogate"):
        text("\ud800")
    assert guarded(lambda: {"text": text("{{ raise_exception('\ud800') }}")}) == {"error": "?"}


def test_an_error_is_not_longer_than_a_line() -> None:
    """Templates raise any text."""
    answer = guarded(lambda: {"text": text("{{ raise_exception('no' * 99999) }}")})
    assert len(answer["error"]) == template_worker.MAX_ERROR_CHARACTERS
