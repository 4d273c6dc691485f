"""The example and the tables of docs/plan.md: `python -m scripts.plan_page` renews them."""

import shlex
from dataclasses import replace
from pathlib import Path

from peregrine_router.hardware import DEVICES
from peregrine_router.planning.choices import MORE_SHARDS, all_formats, first_that_fits
from peregrine_router.planning.command import answer, parse
from peregrine_router.planning.devices import find_device
from peregrine_router.planning.models import find_model, short_name
from peregrine_router.planning.plan import Deployment, Plan
from peregrine_router.planning.report import as_text

PAGE = Path(__file__).parents[1] / "docs/plan.md"
BEGIN, END = "<!-- {}: python -m scripts.plan_page -->\n", "<!-- end of {} -->\n"
EXAMPLE = "falcon-40b-instruct --device a100-40g"
FIGURES = (
    ("falcon-7b", None, 1, "15 GB"),
    ("falcon-40b", None, 2, "90 GB"),
    ("falcon-40b", "int8", 1, "45 GB"),
    ("falcon-40b", "nf4", 1, "27 GB"),
    ("falcon-40b", "int4", 1, "27 GB"),
    ("falcon-180B", None, 8, "640 GB of devices"),
    ("falcon-180B", "int8", 4, ""),
    ("falcon-180B", "int4", 2, "320 GB of devices (GPTQ)"),
)
"""Model, weights, devices, published figure."""
MODELS = ("falcon-rw-1b", "falcon-rw-7b", "falcon-7b", "falcon-11B", "falcon-40b", "falcon-180B")
SHOWN = [device for device in DEVICES if not device.name.endswith("-pcie") and device.name != "l40"]


def example() -> str:
    """The command and what it prints."""
    return f"```\n$ peregrine plan {EXAMPLE}\n{as_text(answer(parse(shlex.split(EXAMPLE))))}\n```\n"


def figures() -> str:
    """The published figures beside the planned ones."""
    rows = ["| model | weights | devices | published | weights alone | needed |", "|---|---|---|---|---|---|"]
    for name, quantize, count, published in FIGURES:
        plan = Plan.of(figure_deployment(name, quantize, count))
        rows.append(
            f"| {name} | {plan.deployment.weights} | {count} x {plan.deployment.device.name} | {published} "
            f"| {plan.weight_bytes / 1e9:.1f} GB | {count * plan.needed_bytes / 1e9:.1f} GB |"
        )
    return "\n".join([*rows, ""])


def figure_deployment(name: str, quantize: str | None, num_shards: int) -> Deployment:
    """A deployment of FIGURES, on cards of 80 GB."""
    device, model = find_device("a100-80g"), find_model(name)
    return Deployment(model=model, device=device, num_shards=num_shards, quantize=quantize, max_total_tokens=2048)


def table() -> str:
    """For every Falcon and device, the first weights that fit, on as few devices as possible."""
    head = ["model", *(device.name for device in SHOWN)]
    rows = [head, ["---"] * len(head), *([short_name(name), *_cells(name)] for name in MODELS)]
    return "".join(f"| {' | '.join(row)} |\n" for row in rows)


def renewed(page: str) -> str:
    """The page with all of them as they are now."""
    for name, text in (("example", example()), ("figures", figures()), ("table", table())):
        head, rest = page.split(BEGIN.format(name))
        page = head + BEGIN.format(name) + text + END.format(name) + rest.split(END.format(name))[1]
    return page


def _cells(name: str) -> list[str]:
    model = find_model(name)
    deployments = (
        Deployment(model=model, device=device, max_total_tokens=model.config.max_positions) for device in SHOWN
    )
    return [_cell(each) for each in deployments]


def _cell(deployment: Deployment) -> str:
    counts = (replace(deployment, num_shards=count) for count in (1, *MORE_SHARDS))
    plan = first_that_fits(counts, all_formats(deployment.model))
    if plan is None:
        return "-"
    count = plan.deployment.num_shards
    return plan.deployment.weights if count == 1 else f"{count} x {plan.deployment.weights}"


if __name__ == "__main__":
    PAGE.write_text(renewed(PAGE.read_text(encoding="utf-8")), encoding="utf-8")
