"""Every option once: flag, environment variable, default, bounds, help. Names and meanings are TGI's launcher's."""

from collections.abc import Iterator
from typing import Literal

from pydantic import model_validator
from pydantic_settings import BaseSettings, PydanticBaseSettingsSource, SettingsConfigDict

from peregrine_router.options import Environment, KeyList, NameList, PathPrefix, option
from peregrine_server.models.formats.registry import FORMATS, format_names, weight_format

Dtype = Literal["float32", "bfloat16", "float16"]
Device = Literal["cpu", "cuda"]


class Settings(BaseSettings):
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
        cli_shortcuts={"port": "p"},
    )

    model_id: str | None = option(
        None,
        "MODEL_ID",
        "Model of the Hugging Face Hub, or a local folder. Not set: the demo model.",
        metavar="MODEL",
        min_length=1,
    )
    revision: str | None = option(
        None, "REVISION", "Commit, branch or tag of the model on the Hub.", metavar="REVISION", min_length=1
    )
    num_shard: int = option(
        1,
        "NUM_SHARD",
        "Tensor parallel size: GPUs, or CPU processes, that the model is split over. Any number works.",
    )
    dtype: Dtype | None = option(
        None,
        "DTYPE",
        "Data type of weights and activations. Not set: bfloat16 where the device computes in it, else float32.",
    )
    quantize: str | None = option(
        None,
        "QUANTIZE",
        "Weight format. int8: quantized to 8-bit integers as they are loaded; computes in bfloat16.",
        metavar="{" + ",".join(FORMATS) + "}",
    )
    kv_cache_dtype: Literal["fp8_e4m3fn", "int8"] | None = option(
        None, "KV_CACHE_DTYPE", "8-bit KV cache on a GPU, in half the memory. Not set: as dtype."
    )
    device: Device | None = option(None, "DEVICE", "Device of the model. Not set: cuda if there is a GPU, else cpu.")
    port: int = option(3000, "PORT", "TCP port; 0 lets the system choose.", metavar="PORT", ge=0, le=65535)
    # Shells and containers set HOSTNAME to the machine's name: reading it would open the server to the network unasked.
    hostname: str = option(
        "127.0.0.1", "PEREGRINE_HOSTNAME", "Address to listen on; 0.0.0.0 is every interface.", metavar="HOST"
    )
    max_concurrent_requests: int = option(
        128, "MAX_CONCURRENT_REQUESTS", "Requests in the server, running or waiting; more are answered 429.", ge=1
    )
    max_queue_size: int | None = option(
        None, "MAX_QUEUE_SIZE", "Requests that wait for a place in the batch; more are answered 429.", ge=1
    )
    max_queue_tokens: int | None = option(
        None, "MAX_QUEUE_TOKENS", "Prompt tokens of all waiting requests; more are answered 429.", ge=1
    )
    max_request_timeout: float | None = option(
        None,
        "MAX_REQUEST_TIMEOUT",
        "Time after which any request ends with an error. Not set: never.",
        metavar="SECONDS",
        gt=0,
    )
    max_input_tokens: int | None = option(
        None, "MAX_INPUT_TOKENS", "Tokens of the longest prompt. Not set: one less than max_total_tokens.", ge=1
    )
    max_total_tokens: int | None = option(
        None, "MAX_TOTAL_TOKENS", "Tokens of prompt and output together. Not set: the model's context length.", ge=2
    )
    max_batch_prefill_tokens: int | None = option(
        None,
        "MAX_BATCH_PREFILL_TOKENS",
        "Token budget of a step; longer prompts are prefilled in chunks. Not set: 256 on a CPU, 4096 on GPUs.",
        ge=1,
    )
    max_mixed_step_seconds: float | None = option(
        None,
        "MAX_MIXED_STEP_SECONDS",
        "Target time of a step that both prefills and decodes: prefill chunks are sized so that decoding requests wait "
        "about this long. Not set: 0.3 on a CPU, 0.05 on GPUs.",
        metavar="SECONDS",
        gt=0,
    )
    max_batch_total_tokens: int | None = option(
        None, "MAX_BATCH_TOTAL_TOKENS", "Tokens that the KV cache holds. Not set: as many as fit in memory.", ge=1
    )
    max_batch_size: int | None = option(
        None, "MAX_BATCH_SIZE", "Sequences in the running batch. Not set: max_concurrent_requests."
    )
    max_best_of: int | None = option(
        None, "MAX_BEST_OF", "Largest `best_of` or `n` of a request. Not set: 2 on TGI's routes, 128 on OpenAI's.", ge=1
    )
    max_stop_sequences: int = option(4, "MAX_STOP_SEQUENCES", "Most `stop` sequences of a request.", ge=0)
    max_top_n_tokens: int | None = option(
        None,
        "MAX_TOP_N_TOKENS",
        "Largest `top_n_tokens` or `top_logprobs` of a request. Not set: 5 on TGI's routes, 20 on OpenAI's.",
        ge=0,
    )
    max_stop_length: int = option(1024, "MAX_STOP_LENGTH", "Most characters of one stop sequence.", ge=1)
    max_stop_token_ids: int = option(64, "MAX_STOP_TOKEN_IDS", "Most `stop_token_ids` of a request.", ge=0)
    max_logit_bias: int = option(1024, "MAX_LOGIT_BIAS", "Most tokens in the `logit_bias` of a request.", ge=0)
    max_grammar_length: int = option(65_536, "MAX_GRAMMAR_LENGTH", "Most characters of a grammar.", ge=1)
    max_tools: int = option(64, "MAX_TOOLS", "Most `tools` of a chat request.", ge=0)
    max_client_batch_size: int | None = option(
        None,
        "MAX_CLIENT_BATCH_SIZE",
        "Most prompts of one request. Not set: 4 of /vertex, 2048 of /v1/completions.",
        ge=1,
    )
    disable_grammar_support: bool = option(False, "DISABLE_GRAMMAR_SUPPORT", "Refuse grammars and forced tool calls.")
    special_tokens_in_prompts: bool = option(
        False,
        "SPECIAL_TOKENS_IN_PROMPTS",
        "Parse special tokens in the text of raw prompts, for clients that apply chat templates themselves. "
        "Chat messages stay text.",
    )
    tokenizer_config_path: str | None = option(
        None,
        "TOKENIZER_CONFIG_PATH",
        "A tokenizer_config.json whose chat template is used instead of the model's.",
        metavar="FILE",
        min_length=1,
    )
    validation_workers: int = option(2, "VALIDATION_WORKERS", "Threads that tokenize prompts.")
    api_key: KeyList = option(
        (), "API_KEY", "API keys: clients must send one as `Authorization: Bearer`.", metavar="KEY[,KEY...]"
    )
    api_key_file: str | None = option(
        None,
        "API_KEY_FILE",
        "File of more API keys: one a line, plain or as SHA-256 in hex. Reloaded when it changes.",
        metavar="FILE",
        min_length=1,
    )
    cors_allow_origin: NameList = option(
        (),
        "CORS_ALLOW_ORIGIN",
        "Origins whose pages may call the server (CORS). Not set: any.",
        metavar="ORIGIN[,ORIGIN...]",
    )
    root_path: PathPrefix = option(
        "",
        "ROOT_PATH",
        "Path under which a proxy publishes the server, as in /falcon; the proxy may strip it or leave it on.",
        metavar="PATH",
    )
    keep_alive_timeout: int = option(
        75,
        "KEEP_ALIVE_TIMEOUT",
        "Time after which an idle connection is closed; longer than the pool of a proxy in front keeps it.",
        metavar="SECONDS",
        ge=1,
    )
    slow_client_timeout: float = option(
        60.0,
        "SLOW_CLIENT_TIMEOUT",
        "Time after which a client that does not read its stream is disconnected.",
        metavar="SECONDS",
        gt=0,
    )
    payload_limit: int = option(
        2_000_000, "PAYLOAD_LIMIT", "Largest request body; larger ones are answered 413.", metavar="BYTES", ge=1
    )
    prefix_caching: bool = option(
        True,
        "PREFIX_CACHING",
        "Automatic prefix caching: reuse KV blocks of earlier requests that start with the same tokens.",
    )
    prefix_cache_tenant_fraction: float = option(
        0.5,
        "PREFIX_CACHE_TENANT_FRACTION",
        "Largest part of the KV cache for cached blocks of one API key while other keys have cached blocks too.",
        metavar="FRACTION",
        gt=0,
        le=1,
    )
    overlap: bool = option(
        True, "OVERLAP", "Overlap scheduling: send each step before the previous step's tokens have arrived."
    )
    speculate: int = option(
        0,
        "SPECULATE",
        "Speculative decoding by prompt lookup: maximum draft tokens per step. 0 disables it.",
        ge=0,
        le=16,
    )
    block_size: int = option(64, "KV_BLOCK_SIZE", "Tokens in a block of the KV cache.", ge=1, le=1024)
    cuda_memory_fraction: float = option(
        1.0, "CUDA_MEMORY_FRACTION", "Part of each GPU's memory that a shard may use.", metavar="FRACTION", gt=0, le=1
    )
    huggingface_hub_cache: str | None = option(
        None,
        "HUGGINGFACE_HUB_CACHE",
        "Folder of downloaded models. Not set: the default of huggingface_hub.",
        metavar="FOLDER",
    )
    compute_type: str | None = option(
        None,
        "COMPUTE_TYPE",
        "Value of the response header x-compute-type. Not set: cpu+optimized or gpu+optimized.",
        metavar="TYPE",
    )
    json_output: bool = option(False, "JSON_OUTPUT", "Log in JSON, one object per line.")
    graceful_termination_timeout: int = option(
        90,
        "GRACEFUL_TERMINATION_TIMEOUT",
        "Time for running requests to finish after SIGTERM.",
        metavar="SECONDS",
        ge=0,
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
        (settings.num_shard < 1, "`num_shard` cannot be < 1"),
        *_quantize_contradictions(settings.quantize, settings.dtype),
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


def _quantize_contradictions(name: str | None, dtype: str | None) -> Iterator[tuple[bool, str]]:
    if name is None:
        return
    names = format_names()
    yield name not in names, f"--quantize (or QUANTIZE): {name} is not known, choose one of {', '.join(names)}"
    computed = weight_format(name).compute_dtype if name in names else None
    is_other = computed is not None and dtype not in (None, computed)
    yield is_other, f"--quantize {name} computes in {computed}: leave --dtype {dtype} out"
