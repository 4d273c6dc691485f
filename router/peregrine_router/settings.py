"""The options together: what they may not contradict, and which source wins."""

from pydantic import model_validator
from pydantic_settings import BaseSettings, PydanticBaseSettingsSource, SettingsConfigDict

from peregrine_router.options.admission import AdmissionOptions
from peregrine_router.options.batching import BatchingOptions
from peregrine_router.options.declaration import Environment
from peregrine_router.options.machines import MachinesOptions
from peregrine_router.options.model import ModelOptions, quantize_contradictions
from peregrine_router.options.network import NetworkOptions
from peregrine_router.options.operation import OperationOptions
from peregrine_router.options.requests import RequestOptions

GROUPS = (
    ModelOptions,
    NetworkOptions,
    AdmissionOptions,
    RequestOptions,
    BatchingOptions,
    OperationOptions,
    MachinesOptions,
)
"""The groups in the order of the help."""


class Settings(
    MachinesOptions, OperationOptions, BatchingOptions, RequestOptions, AdmissionOptions, NetworkOptions, ModelOptions
):
    """Serve a Falcon model over HTTP. A flag overrides its environment variable; `auto` stands for "not set"."""

    model_config = SettingsConfigDict(
        frozen=True,
        extra="forbid",
        cli_prog_name="peregrine serve",
        cli_kebab_case=True,
        cli_implicit_flags=True,
        cli_hide_none_type=True,
        cli_avoid_json=True,
        cli_parse_none_str="auto",
        cli_exit_on_error=False,
        cli_shortcuts={"port": "p", "graceful-termination-timeout": "g", "env": "e"},
    )

    @model_validator(mode="after")
    def _agree(self) -> "Settings":
        for is_wrong, message in _contradictions(self):
            if is_wrong:
                raise ValueError(message)
        return self

    @classmethod
    def settings_customise_sources(
        cls,
        settings_cls: type[BaseSettings],
        init_settings: PydanticBaseSettingsSource,
        env_settings: PydanticBaseSettingsSource,
        dotenv_settings: PydanticBaseSettingsSource,
        file_secret_settings: PydanticBaseSettingsSource,
    ) -> tuple[PydanticBaseSettingsSource, ...]:
        """Orders the sources: arguments, environment variables of the options, defaults."""
        return init_settings, Environment(settings_cls)


def _contradictions(settings: Settings) -> list[tuple[bool, str]]:
    prompt, total = settings.max_input_tokens, settings.max_total_tokens
    prefill, cache = settings.max_batch_prefill_tokens, settings.max_batch_total_tokens
    return [
        (
            (settings.shard_address is None) != (settings.shard_keys is None),
            "--shard-address and --shard-keys go together: make the keys with `peregrine keys`",
        ),
        (
            settings.local_shards is not None and settings.shard_address is None,
            "--local-shards without --shard-address is --num-shard",
        ),
        (
            settings.shard_address is not None and settings.num_shard is None,
            "--shard-address needs --num-shard: the shards of all machines together",
        ),
        (settings.num_shard is not None and settings.num_shard < 1, "`num_shard` cannot be < 1"),
        *quantize_contradictions(settings.quantize, settings.dtype),
        (settings.validation_workers < 1, "`validation_workers` must be > 0"),
        (settings.max_batch_size is not None and settings.max_batch_size < 1, "`max_batch_size` must be > 0"),
        (
            prompt is not None and total is not None and prompt >= total,
            f"`max_input_tokens` must be < `max_total_tokens`. Given: {prompt} and {total}",
        ),
        (
            prefill is not None and cache is not None and prefill > cache,
            f"`max_batch_prefill_tokens` must be <= `max_batch_total_tokens`. Given: {prefill} and {cache}",
        ),
        (
            total is not None and cache is not None and total > cache,
            f"`max_total_tokens` must be <= `max_batch_total_tokens`. Given: {total} and {cache}",
        ),
    ]
