"""The log's part of an error: clients read what to do, operators also what a library said."""

import logging

MAX_CAUSE_CHARACTERS = 500
log = logging.getLogger(__name__)


def log_cause(error: Exception) -> None:
    """Logs the exception from which `error` was raised, with its type, as one line beside the request's id."""
    if (cause := error.__cause__) is not None:
        text = " ".join(str(cause).split())[:MAX_CAUSE_CHARACTERS]
        log.warning("a request failed", extra={"fields": {"cause": f"{type(cause).__name__}: {text}"}})
