"""The messages between the router and its shards. MessagePack through msgspec: no pickle, no torch.

One ZeroMQ PAIR socket per rank. The router sends every shard the same bytes; rank 0 alone answers a `Step`.
Numbers travel as packed little-endian arrays (`pack` / `unpack`): a decode step of 256 sequences is under 2 KB.
"""

from array import array
from collections.abc import Iterable
from typing import Any, Literal

import msgspec
import numpy as np
from numpy.typing import NDArray

PROBE_INTERVAL = 16
"""Steps. Sequences in backoff propose draft tokens only in steps whose id is a multiple of this, all in the same ones,
because a step that may propose waits for the previous step's tokens."""
MAX_MESSAGE_BYTES = 64 * 2**20
"""Size limit of one message. A peer that sends more is broken; ZeroMQ drops the connection."""


class Grammar(msgspec.Struct, frozen=True, array_like=True):
    """The grammar that a sequence's text must follow, in a form that llguidance compiles."""

    kind: Literal["json_schema", "regex", "lark"]
    source: str
    """A JSON schema as JSON text, a regular expression, or a Lark grammar."""


class SamplingParams(msgspec.Struct, frozen=True, array_like=True, kw_only=True):
    """How one sequence's tokens are chosen. The defaults are greedy decoding with every parameter off.

    The random number for a token is a function of (`seed`, position) alone, so a replay draws the same tokens.
    """

    do_sample: bool = False
    temperature: float = 1.0
    top_k: int = 0
    """0 is off."""
    top_p: float = 1.0
    typical_p: float = 1.0
    repetition_penalty: float = 1.0
    frequency_penalty: float = 0.0
    seed: int = 0
    """Unsigned, 64 bits."""
    logprobs: bool = False
    """Whether the answer carries each sampled token's log-probability (natural logarithm, after all processors)."""
    top_n_tokens: int = 0
    """Number of likeliest tokens in the answer for each sampled token, and for each prompt token that is scored."""
    prompt_logprobs: bool = False
    min_p: float = 0.0
    """Tokens less likely than this times the likeliest one's probability are dropped; 0 is off."""
    presence_penalty: float = 0.0
    """Subtracted once from the score of every token that was generated (OpenAI's definition)."""
    logit_bias: tuple[tuple[int, float], ...] = ()
    """(token id, value added to its logit)."""
    watermark: bool = False
    min_tokens: int = 0
    """Generated tokens before which `end_token_ids` are never sampled."""
    end_token_ids: tuple[int, ...] = ()
    """The tokens that end this sequence: the model's ends of text unless ignored, and the client's stop tokens."""
    grammar: Grammar | None = None


class NewSequence(msgspec.Struct, frozen=True, array_like=True):
    """A sequence that takes a free slot: everything that a shard needs to know of it, except its blocks."""

    slot: int
    token_ids: bytes
    """int32: the prompt, followed by the tokens generated before a preemption or a restart."""
    prompt_length: int
    """Length of the client's prompt, the first part of `token_ids`."""
    sampling: SamplingParams
    num_cached: int = 0
    """Prefix cache hit: the number of first tokens whose K and V are in the first blocks that the sequence gets. Others
    may compute some of these in the same step: each layer writes all K and V of a step before it reads any."""


class Fork(msgspec.Struct, frozen=True, array_like=True):
    """A sequence that takes a free slot as a copy of another: the same tokens, K and V, in shared blocks."""

    slot: int
    parent: int
    """The slot of a sequence that computes the last of its known tokens in this step; both sample after it."""
    sampling: SamplingParams


class Step(msgspec.Struct, frozen=True, array_like=True, tag="step"):
    """One step's work as a delta on the shards' persistent batch.

    Applied in the order: freed, new, block copies, new blocks, scheduled, forks.

    A scheduled sequence computes its next `num_tokens` tokens. It yields a sampled token when that reaches the last
    token it knows; the shard appends the token itself, so a decode of the next step needs nothing from the router.

    A decode may propose up to `max_draft_tokens` draft tokens and compute those as well; it then yields one more token
    for each accepted one. Draft tokens end one place before the end of the sequence's blocks, so that a step sent
    before the answer to this one has a place for its token.
    """

    id: int
    freed: bytes = b""
    """int32: slots whose sequence ended, was cancelled or preempted."""
    new: list[NewSequence] = []
    slots: bytes = b""
    """int32[n]: the scheduled slots; decodes (one token each) come first."""
    num_decodes: int = 0
    num_tokens: bytes = b""
    """int32[n - num_decodes]: number of tokens that each of the other sequences computes."""
    block_rows: bytes = b""
    """int32[m]: the index into `slots` of the sequence that appends each new block to its table; ascending."""
    new_blocks: bytes = b""
    """int32[m]."""
    copy_rows: bytes = b""
    """int32[c]: the index into `slots` of each sequence whose last block, shared with others, becomes a copy."""
    copy_blocks: bytes = b""
    """int32[c]: the copies. All are read before any is written."""
    forks: list[Fork] = []
    max_draft_tokens: int = 0
    draft_cost: tuple[float, float] = (0.0, 0.0)
    """(fixed, each): relative to a step without draft tokens, a step with g of them takes 1 + fixed + each * g."""


class Shutdown(msgspec.Struct, frozen=True, array_like=True, tag="shutdown"):
    """The shard leaves its loop and exits."""


class Loading(msgspec.Struct, frozen=True, array_like=True, tag="loading"):
    """Progress of the weights."""

    rank: int
    loaded_bytes: int
    total_bytes: int


class CacheSpec(msgspec.Struct, frozen=True, array_like=True):
    """State that a model keeps of a sequence on one rank, and the scheduling features that this state permits."""

    kv_bytes_per_token: int
    state_bytes_per_slot: int = 0
    """Bytes of fixed-size state beside the KV cache (recurrent layers)."""
    can_share_prefixes: bool = True
    """Whether a sequence can start from another's cached blocks."""
    can_fork: bool = True
    """Whether a sequence can start as a copy of another."""
    can_speculate: bool = True
    """Whether rejected draft tokens leave no trace in the cache."""


class Ready(msgspec.Struct, frozen=True, array_like=True, tag="ready"):
    """The shard has its weights and KV cache and waits for steps."""

    rank: int
    device: str
    dtype: str
    weight_bytes: int
    num_blocks: int
    block_size: int
    cache: CacheSpec
    kernels: str
    """The kernels that compute the model, for the operator: "AMX", "Triton sm_90", ..."""
    device_name: str = ""
    """The GPU's name as CUDA gives it; empty for a CPU."""
    host_bytes: int = 0
    link_bytes_per_second: float = 0.0
    """Weights in the host's memory, beyond `weight_bytes`, and the measured speed at which every step copies them."""
    read_bytes: int = 0
    load_seconds: float = 0.0
    """Bytes of the checkpoint that this shard read, and seconds until all were packed on the device."""


class Failed(msgspec.Struct, frozen=True, array_like=True, tag="failed"):
    """The shard cannot go on; `message` is one line for the operator that says what to do."""

    rank: int
    message: str
    free_bytes: int = 0
    """Memory that there was for a model that does not fit it; 0: there is another reason."""


class TopTokens(msgspec.Struct, frozen=True, array_like=True):
    """The likeliest tokens where one was sampled, best first."""

    row: int
    """The sampled token's index in `StepResult.token_ids`."""
    token_ids: bytes
    """int32[top_n_tokens]."""
    logprobs: bytes
    """float32[top_n_tokens]."""


class PromptLogprobs(msgspec.Struct, frozen=True, array_like=True):
    """Log-probabilities of the prompt tokens `start`, `start + 1`, ... (each given the tokens before it)."""

    slot: int
    start: int
    logprobs: bytes
    """float32[m]."""
    top_token_ids: bytes = b""
    """int32[m, top_n_tokens]: the likeliest tokens at each of these positions, best first."""
    top_logprobs: bytes = b""
    """float32[m, top_n_tokens]."""


class SequenceFailed(msgspec.Struct, frozen=True, array_like=True):
    """The sequence in `slot` cannot go on; its sampled token is invalid. Other sequences are not affected."""

    slot: int
    message: str
    """One line for the client."""
    detail: str = ""
    """Detail for the log alone."""


class StepResult(msgspec.Struct, frozen=True, array_like=True, tag="result"):
    """Rank 0's answer to a `Step`: the sampled tokens of the sequences that reached their end."""

    id: int
    slots: bytes
    """int32[m]. A slot that yields several tokens occurs once for each, in order."""
    token_ids: bytes
    """int32[m]."""
    logprobs: bytes
    """float32[m]; NaN for sequences that do not ask for it; empty if none does."""
    top_tokens: list[TopTokens] = []
    prompt_logprobs: list[PromptLogprobs] = []
    failed: list[SequenceFailed] = []
    num_draft_tokens: int = 0
    """Draft tokens that the step verified, accepted or not."""


class ShardConfig(msgspec.Struct, frozen=True, kw_only=True):
    """Start-up configuration of a shard process, a line of JSON on its standard input, which stays open."""

    rank: int
    num_shards: int
    socket_path: str
    model_path: str
    hf_overrides: dict[str, Any] = {}
    """Values that replace those of config.json."""
    device: str
    dtype: str
    """float32, bfloat16, float16, or auto: bfloat16 where the device multiplies it, else float32."""
    quantize: str | None = None
    """The weight format of linears, by its name ("int8", ...); None: as `dtype`."""
    kv_cache_dtype: str | None = None
    """int8 or fp8_e4m3fn: keys and values of 8 bits, with scales; None: as `dtype`."""
    rendezvous: str
    """Where the ranks of torch.distributed find each other: path of a file, or tcp://HOST:PORT of rank 0's store."""
    store_fd: int | None = None
    """Rank 0 with a store: descriptor of a socket that listens at its address."""
    interface: str = "lo"
    """Network interface of the collectives."""
    device_index: int | None = None
    """Index of this rank's CUDA device; None: as the rank."""
    num_threads: int
    """CPU threads of this rank."""
    max_batch_size: int
    max_total_tokens: int
    max_batch_total_tokens: int | None = None
    """Tokens of KV cache; None sizes it from the memory that is free."""
    block_size: int = 64
    eos_token_ids: tuple[int, ...] = ()
    """End-of-text tokens, which a grammar allows once the text is complete."""
    memory_fraction: float = 1.0
    """Fraction of a CUDA device's memory that the shard may take."""
    cpu_offload_bytes: int = 0
    """Bytes of this shard's weights that are to stay in the host's memory; on CUDA only."""
    max_step_tokens: int = 4096
    """Upper bound on a step's tokens, for which a CUDA device's memory is profiled."""
    max_draft_tokens: int = 0
    """Upper bound on the draft tokens of a decode in any step; 0: no speculative decoding."""


ToShard = Step | Shutdown
FromShard = Loading | Ready | Failed | StepResult

encode = msgspec.msgpack.Encoder().encode
decode_to_shard = msgspec.msgpack.Decoder(ToShard).decode
decode_from_shard = msgspec.msgpack.Decoder(FromShard).decode

_INT32, _FLOAT32 = np.dtype("<i4"), np.dtype("<f4")


def pack(values: Iterable[int]) -> bytes:
    """int32 values as bytes, little-endian like every supported host.

    For a few values `array` is six times as fast as numpy, and a step packs eight fields.
    """
    return array("i", values).tobytes()


def unpack(data: bytes) -> NDArray[np.int32]:
    """The read-only int32 array that `pack` wrote."""
    return np.frombuffer(data, dtype=_INT32)


def unpack_floats(data: bytes) -> NDArray[np.float32]:
    """The read-only float32 array in `data`."""
    return np.frombuffer(data, dtype=_FLOAT32)
