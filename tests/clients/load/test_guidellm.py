"""guidellm's command line, on prompts that it makes with the model's own tokenizer."""

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from clients.server import DEMO, KEY, MODEL, Server

CLIENT = "guidellm"
REQUESTS, PROMPT_TOKENS, OUTPUT_TOKENS = 8, 32, 12


def benchmark(server: Server, folder: Path, route: str, profile: str) -> dict[str, Any]:
    """The report of one benchmark. Asserts that the command succeeds."""
    report = folder / "report.json"
    settings = {
        "--backend": f"kind=openai_http,target={server.url},model={MODEL},api_key={KEY},request_format={route}",
        "--profile": profile,
        "--constraint": f"kind=max_requests,count={REQUESTS}",
        "--tokenizer": f"kind=huggingface_auto,model={DEMO}",
        "--data": f"kind=synthetic_text,prompt_tokens={PROMPT_TOKENS},output_tokens={OUTPUT_TOKENS}",
        "--output": f"kind=json,path={report}",
    }
    command = [sys.executable, "-m", "guidellm", "run", "--disable-progress"]
    command += [part for setting in settings.items() for part in setting]
    environment = {**os.environ, "HF_HUB_OFFLINE": "1"}
    done = subprocess.run(command, env=environment, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout + done.stderr
    (found,) = json.loads(report.read_text())["benchmarks"]
    return dict(found)


def check(found: dict[str, Any]) -> None:
    """All requests succeed, each with as many tokens as were asked for."""
    requests = found["requests"]
    assert (len(requests["successful"]), len(requests["errored"])) == (REQUESTS, 0)
    assert {request["output_tokens"] for request in requests["successful"]} == {OUTPUT_TOKENS}


@pytest.mark.parametrize("route", ["/v1/completions", "/v1/chat/completions"])
def test_synchronous_benchmark(server: Server, tmp_path: Path, route: str) -> None:
    """One request after the other."""
    check(benchmark(server, tmp_path, route, "kind=synchronous"))


def test_concurrent_benchmark(server: Server, tmp_path: Path) -> None:
    """Several streams at once."""
    check(benchmark(server, tmp_path, "/v1/chat/completions", "kind=concurrent,streams=4"))


def test_responses_benchmark(server: Server, tmp_path: Path) -> None:
    """The same through /v1/responses."""
    check(benchmark(server, tmp_path, "/v1/responses", "kind=synchronous"))
