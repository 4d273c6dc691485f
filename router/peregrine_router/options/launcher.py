"""Options of text-generation-launcher that are not options here, and what becomes of each.

Their names, and which of them take a value: `launcher/src/main.rs` of text-generation-inference 3.3.7. A test holds
that every option of that file is either here or an option of `peregrine serve`.
"""

from dataclasses import dataclass
from typing import Literal

Effect = Literal["mapped", "no effect", "refused"]
OFF = ("", "0", "false", "off", "no")


@dataclass(frozen=True, slots=True)
class LauncherOption:
    """An option that this server does not have by this name."""

    name: str
    """As the environment variable, in lower case."""
    effect: Effect
    reason: str
    """Why it has no effect, or what to use instead."""
    takes_value: bool = True
    has_flag: bool = True
    """Whether there is a flag beside the environment variable."""
    becomes: tuple[str, ...] = ()
    """The flags that take the place of a mapped option; VALUE stands for its value."""
    off: tuple[str, ...] = OFF
    """Values, in lower case, that ask for nothing and are taken without a word."""

    @property
    def flag(self) -> str:
        return "--" + self.name.replace("_", "-")

    @property
    def env(self) -> str:
        return self.name.upper()


def _no_effect(name: str, reason: str, takes_value: bool = True, has_flag: bool = True) -> LauncherOption:
    return LauncherOption(name, "no effect", reason, takes_value, has_flag)


def _refused(name: str, reason: str, takes_value: bool = True) -> LauncherOption:
    return LauncherOption(name, "refused", reason, takes_value)


LAUNCHER_OPTIONS = (
    LauncherOption(
        "max_input_length",
        "mapped",
        "the old name of `--max-input-tokens`",
        becomes=("--max-input-tokens", "VALUE"),
    ),
    LauncherOption(
        "sharded",
        "mapped",
        "`false` is `--num-shard 1`; `true` is the default: a shard a visible GPU",
        becomes=("--num-shard", "1"),
        off=("", "true"),
    ),
    _no_effect("trust_remote_code", "Falcon is built in, and no model's code is ever run", takes_value=False),
    _no_effect("waiting_served_ratio", "prefill chunks join the running batch; see `--max-mixed-step-seconds`"),
    _no_effect("max_waiting_tokens", "prefill chunks join the running batch; see `--max-mixed-step-seconds`"),
    _no_effect("cuda_graphs", "graphs are captured for the batch sizes that decode steps have"),
    _no_effect("disable_custom_kernels", "the kernels are part of the server; there are no others", takes_value=False),
    _no_effect("prometheus_port", "metrics are served at `/metrics` of `--port`"),
    _no_effect("shard_uds_path", "sockets are in a private folder under `TMPDIR`"),
    _no_effect("master_addr", "the shards of one machine find each other through a file"),
    _no_effect("master_port", "the shards of one machine find each other through a file"),
    _no_effect("watermark_gamma", "watermarks have a gamma of 0.5"),
    _no_effect("watermark_delta", "watermarks have a delta of 2.0"),
    _no_effect("usage_stats", "nothing is ever reported to anybody"),
    _no_effect("enable_prefill_logprobs", "`decoder_input_details` always has log-probabilities", takes_value=False),
    _no_effect("attention", "the attention kernels are chosen by device", has_flag=False),
    _no_effect("prefill_chunking", "long prompts are always prefilled in chunks", has_flag=False),
    _no_effect("use_flash_attention", "attention is always paged and fused", has_flag=False),
    _no_effect("tgi_wiggle_room", "see `--cuda-memory-fraction`", has_flag=False),
    _no_effect("request_logprobs", "log-probabilities are part of every token's details", has_flag=False),
    _no_effect("log_colorize", "log lines have no colours", has_flag=False),
    _no_effect("hf_api_token", "set `HF_TOKEN`", has_flag=False),
    _refused("ngrok", "run ngrok beside the server, on its port", takes_value=False),
    _refused("ngrok_authtoken", "run ngrok beside the server, on its port"),
    _refused("ngrok_edge", "run ngrok beside the server, on its port"),
    _refused("lora_adapters", "adapters are not served; merge one into the model's weights and serve those"),
    _refused("weights_cache_override", "give the folder as `--model-id`"),
)

SAME_NAMES = {
    "model_id": "default: the demo model",
    "revision": "",
    "validation_workers": "",
    "num_shard": "default: the visible GPUs, 1 on a CPU; any number divides any model",
    "quantize": "`bitsandbytes` and `eetq` are `int8`, `bitsandbytes-nf4` is `nf4`; `gptq`, `awq`, "
    "`marlin`, `exl2`, `compressed-tensors`, `gguf` and `bitsandbytes-fp4` for a checkpoint of that kind",
    "speculate": "prompt lookup; there are no Medusa heads",
    "dtype": "default: bfloat16 where the device computes in it; also `float32`",
    "kv_cache_dtype": "`fp8_e4m3fn` and `int8`; `fp8_e5m2` is refused",
    "max_concurrent_requests": "",
    "max_best_of": "default on OpenAI's routes: 128",
    "max_stop_sequences": "",
    "max_top_n_tokens": "default on OpenAI's routes: 20",
    "max_input_tokens": "",
    "max_total_tokens": "default: the length that config.json tells",
    "max_batch_prefill_tokens": "default: 256 on a CPU, 4096 on GPUs",
    "max_batch_total_tokens": "honoured as given; default: what fits in memory",
    "max_batch_size": "default: `--max-concurrent-requests`",
    "hostname": "default: 127.0.0.1, in the image 0.0.0.0; the variable is `PEREGRINE_HOSTNAME`",
    "port": "",
    "huggingface_hub_cache": "",
    "cuda_memory_fraction": "",
    "rope_scaling": "no effect on a model without rotary positions",
    "rope_factor": "no effect on a model without rotary positions",
    "json_output": "",
    "log_level": "one of debug, info, warning and error; no flag there",
    "otlp_endpoint": "also HTTP; see tracing.md",
    "otlp_service_name": "default: peregrine",
    "cors_allow_origin": "",
    "api_key": "several by comma; an empty one is refused",
    "tokenizer_config_path": "",
    "disable_grammar_support": "",
    "env": "",
    "max_client_batch_size": "default on OpenAI's routes: 2048",
    "payload_limit": "",
    "graceful_termination_timeout": "",
    "prefix_caching": "no flag there; here also `--no-prefix-caching`",
    "compute_type": "no flag there",
}
"""text-generation-launcher's options that `peregrine serve` has by the same name -> how they differ."""
