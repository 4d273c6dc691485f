"""Exceptions of the HTTP side, each of which `errors` gives a status."""


class IncompleteGeneration(RuntimeError):
    """The engine ended a sequence without its last event."""


class Unhealthy(RuntimeError):
    """No token can be made now."""


class ClientLeft(RuntimeError):
    """The client closed the connection before its answer was complete."""


class Unauthorized(RuntimeError):
    """The request has no valid API key."""


class Forbidden(RuntimeError):
    """The request's API key lacks the scope of the route; the message is the scope."""


class UnknownModel(ValueError):
    """The request is for a model that is not served."""


class UnknownResponse(ValueError):
    """The request is for a response that is not stored."""


class UnknownPreviousResponse(ValueError):
    """The request continues a response that is not stored."""


class UnknownItem(ValueError):
    """The request refers to an item of a response that is not stored."""


class ToolError(ValueError):
    """`tools`, `tool_choice` and the parameters beside them contradict each other."""


class SuffixUnsupported(ValueError):
    """The request has OpenAI's `suffix`."""


class BatchTooLarge(ValueError):
    """The request has more prompts than --max-client-batch-size."""
