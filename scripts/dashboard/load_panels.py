"""Panels of what the server does: overview, latency, throughput."""

from scripts.dashboard.panel import Panel
from scripts.dashboard.queries import MATCH, RATE, TTFT, Query, quantile, quantiles, rate, ratio, total

ITL = "peregrine_inter_token_latency_seconds"
RUNNING = (Query(total("tgi_batch_current_size"), "running"),)
WAITING = (Query(total("tgi_queue_size"), "waiting"),)
COMPUTED = f"{rate('peregrine_prompt_tokens_total')} - {rate('peregrine_cached_tokens_total')}"
MODELS = f"count by (model, dtype, device) (peregrine_model_info{{{MATCH}}})"

OVERVIEW = (
    Panel(
        "Healthy replicas",
        "short",
        "Replicas that can make a token now.",
        (Query(total("peregrine_healthy"), "healthy"),),
        "stat",
        4,
    ),
    Panel(
        "Running", "short", "Requests being computed.", (Query(total("tgi_batch_current_size"), "running"),), "stat", 4
    ),
    Panel("Waiting", "short", "Requests in the queue.", (Query(total("tgi_queue_size"), "waiting"),), "stat", 4),
    Panel(
        "Tokens/s",
        "short",
        "Tokens generated in a second.",
        (Query(rate("peregrine_generated_tokens_total"), "generated"),),
        "stat",
        4,
    ),
    Panel(
        "First token, p95",
        "s",
        "From a request's arrival to its first token.",
        (Query(quantile(0.95, TTFT), "p95"),),
        "stat",
        4,
    ),
    Panel(
        "KV cache",
        "percentunit",
        "Blocks in use, of the fullest replica.",
        (Query(f"max(peregrine_kv_cache_usage_ratio{{{MATCH}}})", "used"),),
        "gauge",
        4,
    ),
    Panel(
        "Requests",
        "reqps",
        "Requests that came, and how they ended.",
        (
            Query(rate("tgi_request_count"), "received"),
            Query(rate("tgi_request_success"), "answered"),
            Query(rate("tgi_request_failure"), "failed"),
        ),
        width=12,
    ),
    Panel(
        "Model",
        "none",
        "What each replica serves.",
        (
            Query(MODELS, "{{model}} {{dtype}} {{device}}"),
            Query(f"count by (version) (peregrine_build_info{{{MATCH}}})", "Peregrine {{version}}"),
        ),
        "stat",
        12,
    ),
)
LATENCY = (
    Panel(
        "Time to first token",
        "s",
        "From a request's arrival to its first token; the dots are exemplars, which lead to traces.",
        quantiles(TTFT, has_exemplars=True),
    ),
    Panel("Inter-token latency", "s", "From a token to the next of its sequence.", quantiles(ITL)),
    Panel(
        "Queue time",
        "s",
        "From the queue to the first step, of answered requests.",
        quantiles("tgi_request_queue_duration"),
    ),
    Panel(
        "Request duration by operation, p95",
        "s",
        "From arrival to the end, answered or failed.",
        (
            Query(
                quantile(0.95, "gen_ai_server_request_duration_seconds", "gen_ai_operation_name"),
                "{{gen_ai_operation_name}}",
            ),
        ),
    ),
    Panel(
        "Time per output token",
        "s",
        "Mean of each answered request, after its first token.",
        quantiles("gen_ai_server_time_per_output_token_seconds"),
    ),
    Panel(
        "Time to first token, distribution",
        "s",
        "Requests by the time to their first token.",
        (
            Query(
                f"sum by (le) (increase(gen_ai_server_time_to_first_token_seconds_bucket{{{MATCH}}}{RATE}))",
                "{{le}}",
                is_heatmap=True,
            ),
        ),
        "heatmap",
    ),
)
THROUGHPUT = (
    Panel(
        "Tokens",
        "short",
        "Tokens a second: generated, prompts computed, prompts found in the prefix cache.",
        (
            Query(rate("peregrine_generated_tokens_total"), "generated"),
            Query(
                f"{rate('peregrine_prompt_tokens_total')} - {rate('peregrine_cached_tokens_total')}",
                "prompts, computed",
            ),
            Query(rate("peregrine_cached_tokens_total"), "prompts, from the cache"),
        ),
    ),
    Panel(
        "Requests in the server",
        "short",
        "Running and waiting.",
        RUNNING + WAITING,
    ),
    Panel(
        "Step time, p95",
        "s",
        "A step's round trip; `prefill` has any part of a prompt in it.",
        (Query(quantile(0.95, "tgi_batch_forward_duration", "method"), "{{method}}"),),
    ),
    Panel(
        "The router's time",
        "percentunit",
        "Share of the time that the step loop schedules, waits for the shards, delivers tokens; the rest is idle.",
        (Query(rate("peregrine_step_phase_seconds_sum", "phase"), "{{phase}}"),),
        is_stacked=True,
    ),
    Panel(
        "Step budget used",
        "percentunit",
        "Tokens computed, of those that the steps' limits allowed.",
        (Query(ratio("peregrine_step_tokens_total", "peregrine_step_budget_tokens_total"), "used"),),
    ),
    Panel(
        "Lengths, median",
        "short",
        "Tokens of answered requests.",
        (
            Query(quantile(0.5, "tgi_request_input_length"), "prompt"),
            Query(quantile(0.5, "tgi_request_generated_tokens"), "generated"),
        ),
    ),
    Panel(
        "Draft tokens",
        "percentunit",
        "Drafts accepted, of those proposed; nothing without --speculate.",
        (Query(ratio("peregrine_accepted_tokens_total", "peregrine_draft_tokens_total"), "accepted"),),
        width=6,
    ),
    Panel(
        "Operations",
        "flops",
        "Of the model's weights, two each, attention aside.",
        (Query(rate("peregrine_model_flops_total"), "operations"),),
        width=6,
    ),
    Panel(
        "Memory traffic",
        "Bps",
        "Weights, once a step, and the keys and values of its sequences.",
        (Query(rate("peregrine_model_bytes_total"), "read"),),
        width=6,
    ),
    Panel(
        "Utilization of the roof",
        "percentunit",
        "Of the devices' peaks: operations (MFU) and memory bandwidth (MBU). Empty where the peaks are not known.",
        (
            Query(f"{rate('peregrine_model_flops_total')} / {total('peregrine_peak_flops_per_second')}", "operations"),
            Query(f"{rate('peregrine_model_bytes_total')} / {total('peregrine_peak_bytes_per_second')}", "bandwidth"),
        ),
        width=6,
    ),
)
