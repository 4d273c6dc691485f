"""Options: steps of the scheduler, and the KV cache."""

from pydantic_settings import BaseSettings

from peregrine_router.options.declaration import option

STEP_TOKENS = {"cpu": 256, "cuda": 4096}
"""Token budget of a step, by device, without --max-batch-prefill-tokens. A CPU computes 128 tokens in a step as fast as
1,024 (1.15 B Falcon, 2 cores, bfloat16: 188 and 183 tokens a second), so a larger budget would only delay running
streams; in a smaller one, the decodes of all admitted streams would leave no room for prefill."""


class BatchingOptions(BaseSettings):
    """Steps of the scheduler, and the KV cache."""

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
    block_size: int = option(64, "KV_BLOCK_SIZE", "Tokens in a block of the KV cache.", ge=1, le=1024)
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
