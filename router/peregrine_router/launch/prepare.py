"""Decisions before the first request: port, model, limits; and the banner that reports them."""

import logging
import os
import resource
import socket
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from peregrine_router.admission.limits import QueueLimit
from peregrine_router.http.key_store import ApiKeyStore
from peregrine_router.interfaces import ModelInfo
from peregrine_router.launch.devices import num_local_shards, num_shards, runs_on_cpu
from peregrine_router.launch.listener import bind
from peregrine_router.launch.memory_lines import load_line, memory_lines, offload_lines
from peregrine_router.launch.model_files import DEMO_MODEL_ID, check_files, commit_of, resolve_model
from peregrine_router.launch.runtime_environment import describe_environment
from peregrine_router.launch.sampling_defaults import sampling_defaults
from peregrine_router.observability.tracing import otlp_options
from peregrine_router.options.batching import STEP_TOKENS
from peregrine_router.scheduling.block_pool import BlockPool
from peregrine_router.scheduling.draft_budget import DraftBudget
from peregrine_router.scheduling.policy import FairPolicy
from peregrine_router.scheduling.scheduler import Scheduler
from peregrine_router.settings import Settings
from peregrine_router.shards.machines import MachinesConfig
from peregrine_router.text.chat_template import Chat
from peregrine_router.text.tokenizer import Tokenizer
from peregrine_server.addresses import interface_of, own_address, split_endpoint
from peregrine_server.container import num_cpus
from peregrine_server.machines.curve_keys import read_keys
from peregrine_server.machines.messages import ModelSource, config_sha256
from peregrine_server.models.formats.interface import DENSE, WeightFormat
from peregrine_server.models.interface import ModelConfig
from peregrine_server.models.registry import load_config, load_format
from peregrine_server.protocol import Ready, ShardConfig

MIXED_STEP_SECONDS = {"cpu": 0.3, "cuda": 0.05}
"""Target duration of a step with both prefill and decodes, by device, without --max-mixed-step-seconds: a pause that a
stream's reader hardly notices. Shorter steps would leave a GEMM too few rows: on 2 cores, 0.3 s are about 55 rows of a
1.15 B Falcon."""

SPECULATIVE_ROWS = {"cpu": 16, "cuda": 64}
"""Maximum rows (sequences and their draft tokens) of a speculative step, by device; up to it, draft_cost.py decides. 16
rows of a 1.15 B Falcon take 2 to 2.5 times as long as one on 2 cores; a GPU's GEMMs are memory-bound up to about 64."""

MIN_FILES = 64
"""Open files without which no start is tried: one shard and the first connections need about 50."""
log = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class Prepared:
    """Everything decided before a process is started. All mistakes that can be found by then have been reported."""

    settings: Settings
    num_shards: int
    listener: socket.socket
    path: Path
    config: ModelConfig
    format: WeightFormat
    tokenizer: Tokenizer
    chat: Chat
    max_total_tokens: int
    sampling_defaults: dict[str, float]
    """See `ModelInfo`."""

    @property
    def model_id(self) -> str:
        return self.settings.model_id or DEMO_MODEL_ID

    @property
    def max_batch_size(self) -> int:
        """Maximum running sequences: as many as requests are admitted, unless configured."""
        return self.settings.max_batch_size or self.settings.max_concurrent_requests

    @property
    def threads_per_shard(self) -> int:
        """Threads of each shard on a CPU: one a core for all shards together, because one more slows all down."""
        return max(1, num_cpus() // max(1, num_local_shards(self.settings)))


def prepare(settings: Settings) -> Prepared:
    """Binds the port, finds the model, reads its configuration. Raises ValueError or OSError with one line."""
    otlp_options(settings, os.environ)  # a wrong one is told before the model is loaded
    shards = num_shards(settings)
    if settings.env:
        log.info("\n".join(describe_environment()))
    check_shards(settings, num_local_shards(settings))
    check_open_files()
    listener = bind(settings.hostname, settings.port)
    check_key_file(settings)
    path = resolve_model(settings.model_id, settings.revision, settings.huggingface_hub_cache)
    check_files(path)
    config, weight_format = read_config(path, settings), load_format(path, settings.quantize)
    total = settings.max_total_tokens or max(config.max_positions, (settings.max_input_tokens or 0) + 1)
    tokenizer = Tokenizer.load(path, config.vocab_size)
    chat = Chat.load(path, settings.model_id or DEMO_MODEL_ID, tokenizer, settings.tokenizer_config_path)
    defaults = sampling_defaults(settings, path)
    return Prepared(settings, shards, listener, path, config, weight_format, tokenizer, chat, total, defaults)


def check_open_files() -> None:
    """Raises ValueError if so few files may be open that ZeroMQ would abort the process."""
    limit, _ = resource.getrlimit(resource.RLIMIT_NOFILE)
    if limit < MIN_FILES:
        raise ValueError(f"only {limit} files may be open, {MIN_FILES} are needed: raise `ulimit -n`")


def check_key_file(settings: Settings) -> None:
    """Raises OSError or ValueError with one line if the file of keys cannot be read, before a model loads."""
    if settings.api_key_file is None:
        return
    try:
        ApiKeyStore((), Path(settings.api_key_file))
    except OSError as error:
        raise OSError(f"{settings.api_key_file} cannot be read ({error.strerror}): check --api-key-file") from None


def check_shards(settings: Settings, num: int) -> None:
    """Warns if a CPU has fewer cores than shards: these take turns, and each step waits for all of them. Raises
    ValueError if a CPU is to keep weights in the host's memory."""
    if settings.cpu_offload_gb and runs_on_cpu(settings):
        raise ValueError("--cpu-offload-gb is for GPUs: on a CPU all weights are in its memory; leave it out")
    cores = num_cpus()
    if runs_on_cpu(settings) and num > cores:
        log.warning("--num-shard %d is more than the %d CPU cores: fewer are faster", num, cores)


def read_config(path: Path, settings: Settings) -> ModelConfig:
    """The model's shape, with a warning if --rope-scaling changes nothing. Raises ConfigError or UnsupportedModel."""
    overrides = hf_overrides(settings)
    config = load_config(path, overrides)
    if overrides and config == load_config(path):
        log.warning("--rope-scaling has no effect: the model's positions are not rotary, or scaled like this already")
    return config


def hf_overrides(settings: Settings) -> dict[str, Any]:
    """Values that replace those of config.json, in the words of transformers."""
    kind, factor = settings.rope_scaling, settings.rope_factor
    if kind is None and factor is None:
        return {}
    return {"rope_scaling": {"rope_type": kind or "linear", "factor": factor or 1.0}}


def shard_config(prepared: Prepared) -> ShardConfig:
    """The configuration common to all ranks; each spawn fills in the rank and the paths."""
    settings = prepared.settings
    return ShardConfig(
        rank=0,
        num_shards=prepared.num_shards,
        socket_path="",
        rendezvous="",
        model_path=str(prepared.path),
        hf_overrides=hf_overrides(settings),
        device=settings.device or "auto",
        dtype=settings.dtype or prepared.format.compute_dtype or "auto",
        quantize=settings.quantize,
        kv_cache_dtype=settings.kv_cache_dtype,
        num_threads=prepared.threads_per_shard,
        max_batch_size=prepared.max_batch_size,
        max_total_tokens=prepared.max_total_tokens,
        max_batch_total_tokens=settings.max_batch_total_tokens,
        block_size=settings.block_size,
        memory_fraction=settings.cuda_memory_fraction,
        cpu_offload_bytes=int(settings.cpu_offload_gb * 2**30),
        max_step_tokens=settings.max_batch_prefill_tokens or STEP_TOKENS["cuda"],
        eos_token_ids=tuple(sorted(prepared.tokenizer.eos_token_ids)),
        max_draft_tokens=settings.speculate,
    )


def machines_config(prepared: Prepared) -> MachinesConfig | None:
    """How shards on other machines join; None if all are on this one. Raises ValueError or OSError with one line."""
    settings = prepared.settings
    if settings.shard_address is None or settings.shard_keys is None:
        return None
    host, port = split_endpoint(settings.shard_address)
    address = own_address(host)
    return MachinesConfig(
        address=address,
        port=port,
        interface=interface_of(address) or "",
        keys=read_keys(Path(settings.shard_keys)),
        num_local=num_local_shards(settings),
        model=ModelSource(
            settings.model_id, commit_of(prepared.path) or settings.revision, config_sha256(prepared.path)
        ),
    )


def make_scheduler(prepared: Prepared, ready: list[Ready]) -> Scheduler:
    """The scheduler, sized by the smallest shard, with the features that the model's cache allows."""
    settings, cache = prepared.settings, ready[0].cache
    device = ready[0].device.partition(":")[0]
    max_step_tokens = settings.max_batch_prefill_tokens or STEP_TOKENS[device]
    return Scheduler(
        BlockPool(
            min(shard.num_blocks for shard in ready),
            settings.block_size,
            tenant_fraction=settings.prefix_cache_tenant_fraction,
        ),
        FairPolicy(prepared.max_batch_size, lead=max_step_tokens),
        max_batch_size=prepared.max_batch_size,
        max_step_tokens=max_step_tokens,
        eos_token_ids=prepared.tokenizer.eos_token_ids,
        caches_prefixes=settings.prefix_caching and cache.can_share_prefixes,
        can_fork=cache.can_fork,
        speculation=DraftBudget(
            settings.speculate if cache.can_speculate else 0, max_speculative_rows(device, prepared.max_batch_size)
        ),
    )


def mixed_step_seconds(settings: Settings, ready: list[Ready]) -> float:
    """Target duration of a step with both prefill and decodes."""
    return settings.max_mixed_step_seconds or MIXED_STEP_SECONDS[ready[0].device.partition(":")[0]]


def max_speculative_rows(device: str, max_batch_size: int) -> int:
    """Maximum rows of a speculative step; on a GPU not above the largest batch that has a CUDA graph."""
    rows = SPECULATIVE_ROWS[device]
    return min(rows, max_batch_size) if device == "cuda" else rows


def queue_limit(settings: Settings) -> QueueLimit:
    """Limits of the waiting queue."""
    return QueueLimit(settings.max_queue_size, settings.max_queue_tokens)


def model_info(prepared: Prepared, ready: list[Ready]) -> ModelInfo:
    """The model and limits that `/info` answers."""
    settings, first = prepared.settings, ready[0]
    return ModelInfo(
        model_id=prepared.model_id,
        model_sha=commit_of(prepared.path),
        model_dtype=first.dtype,
        model_device_type=first.device.partition(":")[0],
        num_shard=len(ready),
        max_batch_total_tokens=min(shard.num_blocks for shard in ready) * first.block_size,
        vocab_size=prepared.config.vocab_size,
        max_input_tokens=settings.max_input_tokens or prepared.max_total_tokens - 1,
        max_total_tokens=prepared.max_total_tokens,
        sampling_defaults=prepared.sampling_defaults,
    )


def banner(prepared: Prepared, ready: list[Ready], info: ModelInfo) -> list[str]:
    """Lines for the operator: model, device, memory, limits and address."""
    first = ready[0]
    weights = sum(shard.weight_bytes for shard in ready)
    kv_bytes = sum(shard.cache.kv_bytes_per_token for shard in ready)
    shards = f"{len(ready)} shard{'s' * (len(ready) > 1)}"
    quantized = f", weights {prepared.format.name}" if prepared.format.name != DENSE else ""
    threads = f" of {prepared.threads_per_shard} threads" if info.model_device_type == "cpu" else ""
    defaults = ", ".join(f"{name} {value}" for name, value in info.sampling_defaults.items())
    host, port = prepared.listener.getsockname()[:2]
    return [
        f"  model     {info.model_id}: {prepared.config.summary()}",
        f"  device    {info.model_device_type}, {first.dtype}{quantized}, {shards}{threads}",
        f"  kernels   {first.kernels}",
        *memory_lines(weights, info.max_batch_total_tokens, kv_bytes, prepared.settings.kv_cache_dtype),
        *offload_lines(ready),
        load_line(sum(shard.read_bytes for shard in ready), max(shard.load_seconds for shard in ready)),
        f"  requests  up to {info.max_input_tokens:,} input tokens, {info.max_total_tokens:,} in all; "
        f"{prepared.max_batch_size} at once",
        *([f"  defaults  {defaults} (/v1)"] if defaults else []),
        f"  serving   http://{f'[{host}]' if ':' in host else host}:{port}  (API documentation: /docs)",
    ]
