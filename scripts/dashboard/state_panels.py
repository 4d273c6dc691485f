"""Panels of the state that it is in: cache, fairness, faults, replicas."""

from scripts.dashboard.panel import Panel
from scripts.dashboard.queries import MATCH, TTFT, Query, quantile, rate, ratio, total

REFUSED = rate("tgi_request_failure", matchers=',err="overloaded"')
CACHE = (
    Panel(
        "KV blocks",
        "short",
        "Blocks in use, kept for prefix hits, and all.",
        (
            Query(total("peregrine_kv_blocks_used"), "used"),
            Query(total("peregrine_kv_blocks_cached"), "cached"),
            Query(total("peregrine_kv_blocks"), "all"),
        ),
    ),
    Panel(
        "Prefix cache hits",
        "percentunit",
        "Prompt tokens found in the cache.",
        (Query(ratio("peregrine_cached_tokens_total", "peregrine_prompt_tokens_total"), "hits"),),
    ),
    Panel(
        "Evictions and preemptions",
        "cps",
        "Cached blocks that gave way, and running requests that gave up their blocks.",
        (
            Query(rate("peregrine_prefix_cache_evictions_total"), "evicted blocks"),
            Query(rate("peregrine_preemptions_total"), "preempted requests"),
        ),
    ),
)
FAIRNESS = (
    Panel(
        "Waiting by tenant",
        "short",
        "By API key: the first digits of its SHA-256. The ten with the most requests, and `other`.",
        (Query(total("peregrine_tenant_requests", "tenant", ',state="waiting"'), "{{tenant}}"),),
        width=12,
        is_stacked=True,
    ),
    Panel(
        "Running by tenant",
        "short",
        "As to the left.",
        (Query(total("peregrine_tenant_requests", "tenant", ',state="running"'), "{{tenant}}"),),
        width=12,
        is_stacked=True,
    ),
)
FAULTS = (
    Panel(
        "Failed requests",
        "reqps",
        "By kind: `overloaded` is a 429, `validation` a bad request, `dropped` a client that left.",
        (Query(rate("tgi_request_failure", "err"), "{{err}}"),),
    ),
    Panel(
        "Refused with 429",
        "percentunit",
        "Of all requests.",
        (Query(f"{REFUSED} / {rate('tgi_request_count')}", "refused"),),
    ),
    Panel(
        "Age of the step",
        "s",
        "Since when the shards work on their step, of the slowest replica.",
        (Query(f"max(peregrine_step_age_seconds{{{MATCH}}})", "age"),),
    ),
    Panel(
        "Failed steps",
        "cps",
        "Steps that the shards did not answer.",
        (Query(rate("tgi_batch_inference_failure", "method"), "{{method}}"),),
    ),
    Panel(
        "Restarts in an hour",
        "short",
        "Starts of the router's process under the same address.",
        (Query(f"sum by (instance) (changes(process_start_time_seconds{{{MATCH}}}[1h]))", "{{instance}}"),),
    ),
    Panel(
        "Log lines dropped",
        "cps",
        "Lines that nobody read in time.",
        (Query(rate("peregrine_log_lines_dropped_total"), "dropped"),),
    ),
)
REPLICAS = (
    Panel(
        "Tokens/s by replica",
        "short",
        "Tokens generated in a second.",
        (Query(rate("peregrine_generated_tokens_total", "instance"), "{{instance}}"),),
    ),
    Panel(
        "Waiting by replica",
        "short",
        "Requests in the queue.",
        (Query(total("tgi_queue_size", "instance"), "{{instance}}"),),
    ),
    Panel(
        "KV cache by replica",
        "percentunit",
        "Blocks in use.",
        (Query(total("peregrine_kv_cache_usage_ratio", "instance"), "{{instance}}"),),
    ),
    Panel(
        "First token by replica, p95",
        "s",
        "From a request's arrival to its first token.",
        (Query(quantile(0.95, TTFT, "instance"), "{{instance}}"),),
    ),
    Panel(
        "Router's CPU by replica",
        "percentunit",
        "CPU time of the router's process; at 1 its one core is busy.",
        (Query(rate("process_cpu_seconds_total", "instance"), "{{instance}}"),),
    ),
    Panel(
        "Router's memory by replica",
        "bytes",
        "Resident memory of the router's process.",
        (Query(total("process_resident_memory_bytes", "instance"), "{{instance}}"),),
    ),
)
