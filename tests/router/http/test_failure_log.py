"""The log's part of an error."""

import logging

import pytest

from peregrine_router.http.failure_log import MAX_CAUSE_CHARACTERS, log_cause
from peregrine_router.observability.log import LineFormatter, log_context
from peregrine_router.request import InvalidRequest


def caused(cause: Exception) -> InvalidRequest:
    """An error raised from another."""
    error = InvalidRequest("no")
    error.__cause__ = cause
    return error


def test_a_cause_is_one_bounded_line_with_the_requests_id(caplog: pytest.LogCaptureFixture) -> None:
    """Its type and its text, however many lines and characters a library writes."""
    token = log_context.set({"id": "abc"})
    with caplog.at_level(logging.WARNING):
        log_cause(caused(KeyError("a\nb" + "x" * 10**6)))
    (line,) = map(LineFormatter().format, caplog.records)
    log_context.reset(token)
    assert "a request failed id=abc cause=KeyError: 'a\\nbxxx" in line
    assert len(line) < MAX_CAUSE_CHARACTERS + 150
    caplog.clear()
    log_cause(caused(RuntimeError("a\n b")))
    assert LineFormatter().format(caplog.records[0]).endswith("cause=RuntimeError: a b")


def test_an_error_that_says_all_itself_has_no_line(caplog: pytest.LogCaptureFixture) -> None:
    """Mistakes of clients are no news for the operator."""
    log_cause(InvalidRequest("no"))
    assert not caplog.records
