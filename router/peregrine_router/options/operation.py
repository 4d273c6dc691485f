"""Options: log, time limits and the end of the server."""

from pydantic_settings import BaseSettings

from peregrine_router.options.declaration import LogLevel, option


class OperationOptions(BaseSettings):
    """Log, traces, time limits and the end of the server."""

    json_output: bool = option(False, "JSON_OUTPUT", "Log in JSON, one object per line.")
    log_level: LogLevel = option("info", "LOG_LEVEL", "Least severe lines of the log.")
    otlp_endpoint: str | None = option(
        None,
        "OTLP_ENDPOINT",
        "OpenTelemetry collector of the traces: gRPC, or HTTP at port 4318. The SDK's OTEL_* variables work too.",
        metavar="URL",
        pattern="^https?://[^/]",
    )
    otlp_service_name: str | None = option(
        None,
        "OTLP_SERVICE_NAME",
        "Name of this server in traces. Not set: OTEL_SERVICE_NAME, or peregrine.",
        metavar="NAME",
        min_length=1,
    )
    otlp_content: bool = option(False, "OTLP_CONTENT", "Record prompts and generated text in traces.")
    compute_type: str | None = option(
        None,
        "COMPUTE_TYPE",
        "Value of the response header x-compute-type. Not set: cpu+optimized or gpu+optimized.",
        metavar="TYPE",
    )
    shard_timeout: float = option(
        30.0,
        "SHARD_TIMEOUT",
        "Time without a shard's sign of life after which the server ends.",
        metavar="SECONDS",
        gt=0,
    )
    graceful_termination_timeout: int = option(
        90, "GRACEFUL_TERMINATION_TIMEOUT", "Time for running requests after SIGTERM.", metavar="SECONDS", ge=0
    )
    env: bool = option(
        False, "PEREGRINE_ENV", "Log versions, devices and limits of this machine at start, for a report of a bug."
    )
