"""Options: limits of all clients together, and their keys."""

from pydantic_settings import BaseSettings

from peregrine_router.options.declaration import KeyList, option


class AdmissionOptions(BaseSettings):
    """Limits of all clients together, and their keys."""

    max_concurrent_requests: int = option(
        128, "MAX_CONCURRENT_REQUESTS", "Requests in the server, running or waiting; more are answered 429.", ge=1
    )
    max_queue_size: int | None = option(
        None, "MAX_QUEUE_SIZE", "Requests that wait for a place in the batch; more are answered 429.", ge=1
    )
    max_queue_tokens: int | None = option(
        None, "MAX_QUEUE_TOKENS", "Prompt tokens of all waiting requests; more are answered 429.", ge=1
    )
    validation_workers: int = option(2, "VALIDATION_WORKERS", "Threads that tokenize prompts.")
    api_key: KeyList = option(
        (), "API_KEY", "API keys: clients must send one as `Authorization: Bearer`.", metavar="KEY[,KEY...]"
    )
    api_key_file: str | None = option(
        None,
        "API_KEY_FILE",
        "File of more API keys: one a line, plain or as SHA-256 in hex, with its scopes (infer, metrics, admin) behind "
        "it. Reloaded when it changes.",
        metavar="FILE",
        min_length=1,
    )
    response_store_bytes: int = option(
        67_108_864,
        "RESPONSE_STORE_BYTES",
        "Memory for responses of /v1/responses, by which clients continue them. 0 keeps none.",
        metavar="BYTES",
        ge=0,
    )
    response_store_ttl: float = option(
        86_400.0, "RESPONSE_STORE_TTL", "Time after which a stored response is forgotten.", metavar="SECONDS", gt=0
    )
