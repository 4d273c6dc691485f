"""Decisions before the first request: port, model, limits; and the banner that reports them."""

import errno
import logging
import os
import socket
from dataclasses import dataclass
from pathlib import Path

from peregrine_router.admission.limits import QueueLimit
from peregrine_router.interfaces import ModelInfo
from peregrine_router.launch.model_files import DEMO_MODEL_ID, commit_of, resolve_model
from peregrine_router.observability.log import configure_logging
from peregrine_router.scheduling.block_pool import BlockPool
from peregrine_router.scheduling.draft_budget import DraftBudget
from peregrine_router.scheduling.policy import FairPolicy
from peregrine_router.scheduling.scheduler import Scheduler
from peregrine_router.settings import Settings
from peregrine_router.text.chat_template import Chat
from peregrine_router.text.tokenizer import Tokenizer
from peregrine_server.models.formats.registry import weight_format
from peregrine_server.models.interface import ModelConfig
from peregrine_server.models.registry import load_config
from peregrine_server.protocol import Ready, ShardConfig

STEP_TOKENS = {"cpu": 256, "cuda": 4096}
"""Token budget of a step, by device, without --max-batch-prefill-tokens. A CPU computes 128 tokens in a step as fast as
1,024 (1.15 B Falcon, 2 cores, bfloat16: 188 and 183 tokens a second), so a larger budget would only delay running
streams; in a smaller one, the decodes of all admitted streams would leave no room for prefill."""

MIXED_STEP_SECONDS = {"cpu": 0.3, "cuda": 0.05}
"""Target duration of a step with both prefill and decodes, by device, without --max-mixed-step-seconds: a pause that a
stream's reader hardly notices. Shorter steps would leave a GEMM too few rows: on 2 cores, 0.3 s are about 55 rows of a
1.15 B Falcon."""

SPECULATIVE_ROWS = {"cpu": 16, "cuda": 64}
"""Maximum rows (sequences and their draft tokens) of a speculative step, by device; up to it, draft_cost.py decides. 16
rows of a 1.15 B Falcon take 2 to 2.5 times as long as one on 2 cores; a GPU's GEMMs are memory-bound up to about 64."""

SEND_BUFFER_BYTES = 128 * 2**10
"""SO_SNDBUF of each connection; Linux doubles it. By default it grows to megabytes, which hold thousands of tokens: a
client that does not read would be noticed only when everything is generated."""
log = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class Prepared:
    """Everything decided before a process is started. All mistakes that can be found by then have been reported."""

    settings: Settings
    listener: socket.socket
    path: Path
    config: ModelConfig
    tokenizer: Tokenizer
    chat: Chat
    max_total_tokens: int

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
        return max(1, len(os.sched_getaffinity(0)) // self.settings.num_shard)


def prepare(settings: Settings) -> Prepared:
    """Binds the port, finds the model, reads its configuration. Raises ValueError or OSError with one line."""
    configure_logging(json_output=settings.json_output)
    check_shards(settings)
    listener = bind(settings.hostname, settings.port)
    path = resolve_model(settings.model_id, settings.revision, settings.huggingface_hub_cache)
    config = load_config(path)
    total = settings.max_total_tokens or max(config.max_positions, (settings.max_input_tokens or 0) + 1)
    tokenizer = Tokenizer.load(path, config.vocab_size)
    chat = Chat.load(path, settings.model_id or DEMO_MODEL_ID, tokenizer, settings.tokenizer_config_path)
    return Prepared(settings, listener, path, config, tokenizer, chat, total)


def check_shards(settings: Settings) -> None:
    """Warns if a CPU has fewer cores than --num-shard: its shards take turns, and each step waits for all of them."""
    cores = len(os.sched_getaffinity(0))
    is_cpu = settings.device == "cpu" or (settings.device is None and not Path("/dev/nvidiactl").exists())
    if is_cpu and settings.num_shard > cores:
        log.warning("--num-shard %d is more than the %d CPU cores: fewer are faster", settings.num_shard, cores)


def bind(hostname: str, port: int) -> socket.socket:
    """A TCP socket bound to the address, not yet listening. Bound early to report a used port before a model loads."""
    try:
        family, kind, protocol, _, address = socket.getaddrinfo(hostname, port, type=socket.SOCK_STREAM)[0]
        listener = socket.socket(family, kind, protocol)
        listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        listener.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, SEND_BUFFER_BYTES)
        listener.bind(address)
    except OSError as error:
        if error.errno == errno.EADDRINUSE:
            raise OSError(f"port {port} is in use: stop what listens there, or choose another --port") from None
        raise OSError(f"cannot listen on {hostname}:{port} ({error.strerror}): check --hostname and --port") from None
    return listener


def shard_config(prepared: Prepared) -> ShardConfig:
    """The configuration common to all ranks; each spawn fills in the rank and the paths."""
    settings = prepared.settings
    return ShardConfig(
        rank=0,
        num_shards=settings.num_shard,
        socket_path="",
        rendezvous="",
        model_path=str(prepared.path),
        device=settings.device or "auto",
        dtype=settings.dtype or weight_format(settings.quantize).compute_dtype or "auto",
        quantize=settings.quantize,
        kv_cache_dtype=settings.kv_cache_dtype,
        num_threads=prepared.threads_per_shard,
        max_batch_size=prepared.max_batch_size,
        max_total_tokens=prepared.max_total_tokens,
        max_batch_total_tokens=settings.max_batch_total_tokens,
        block_size=settings.block_size,
        memory_fraction=settings.cuda_memory_fraction,
        max_step_tokens=settings.max_batch_prefill_tokens or STEP_TOKENS["cuda"],
        eos_token_ids=tuple(sorted(prepared.tokenizer.eos_token_ids)),
        max_draft_tokens=settings.speculate,
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
    )


def banner(prepared: Prepared, ready: list[Ready], info: ModelInfo) -> list[str]:
    """Lines for the operator: model, device, memory, limits and address."""
    first = ready[0]
    weights = sum(shard.weight_bytes for shard in ready)
    kv_bytes = sum(shard.cache.kv_bytes_per_token for shard in ready)
    kv_tokens = info.max_batch_total_tokens
    shards = f"{len(ready)} shard{'s' * (len(ready) > 1)}"
    quantized = f", weights {prepared.settings.quantize}" if prepared.settings.quantize else ""
    kind = f", {prepared.settings.kv_cache_dtype}" if prepared.settings.kv_cache_dtype else ""
    threads = f" of {prepared.threads_per_shard} threads" if info.model_device_type == "cpu" else ""
    host, port = prepared.listener.getsockname()[:2]
    return [
        f"  model     {info.model_id}: {prepared.config.summary()}",
        f"  device    {info.model_device_type}, {first.dtype}{quantized}, {shards}{threads}",
        f"  kernels   {first.kernels}",
        f"  weights   {weights / 2**20:,.0f} MiB",
        f"  KV cache  {kv_tokens * kv_bytes / 2**20:,.0f} MiB: {kv_tokens:,} tokens of {kv_bytes:,} bytes{kind}",
        f"  requests  up to {info.max_input_tokens:,} input tokens, {info.max_total_tokens:,} in all; "
        f"{prepared.max_batch_size} at once",
        f"  serving   http://{f'[{host}]' if ':' in host else host}:{port}  (API documentation: /docs)",
    ]
