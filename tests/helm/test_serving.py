"""The command of a rendered pod, with its environment and files, is a server that serves."""

import os
import shlex
import subprocess
import sys
from collections.abc import Iterator
from itertools import pairwise
from json import dumps
from pathlib import Path
from typing import Any

import pytest
from scripts.chart.values import CHART

from charts import EXAMPLES, RELEASE, Object, only, pod_of, render, run_helm
from serving import ServerProcess

CPU = next(example for example in EXAMPLES if example.stem == "cpu")
CLOSED: dict[str, Any] = {
    "auth": {"apiKeys": ["key-of-a-client"], "metricsKey": "key-of-prometheus"},
    "ingress": {"enabled": True, "path": "/falcon"},
}
"""Values with keys and a published path."""


class PodProcess(ServerProcess):
    """A server with a pod's arguments, environment and secrets; this machine chooses the port."""

    def __init__(self, objects: list[Object], folder: Path) -> None:
        (container,) = pod_of(objects)["containers"]
        assert "command" not in container, "the image's entry point is `peregrine serve`"
        environment = {**only(objects, "ConfigMap")["data"], "HF_HOME": str(folder / "data"), "TMPDIR": str(folder)}
        if "API_KEY_FILE" in environment:
            file = folder / Path(environment["API_KEY_FILE"]).name
            file.write_text(only(objects, "Secret")["stringData"][file.name])
            environment["API_KEY_FILE"] = str(file)
        super().__init__(*container["args"], env=environment)


@pytest.fixture(scope="module")
def closed(tmp_path_factory: pytest.TempPathFactory) -> Iterator[PodProcess]:
    """A server with keys, under a path."""
    with PodProcess(render(CLOSED, CPU), tmp_path_factory.mktemp("pod")) as server:
        yield server


def test_an_open_pod_serves(tmp_path: Path) -> None:
    """By default nobody needs a key."""
    with PodProcess(render({}, CPU), tmp_path) as server:
        assert server.generate("It was a fine morning, and", max_new_tokens=5).status_code == 200
        assert "tgi_queue_size" in server.client.get("/metrics").text


def test_probes_need_no_key(closed: PodProcess) -> None:
    """The paths of a rendered pod's probes are answered where clients need one."""
    (container,) = pod_of(render(CLOSED, CPU))["containers"]
    for name in ("startupProbe", "readinessProbe", "livenessProbe"):
        assert closed.client.get(container[name]["httpGet"]["path"]).status_code < 300, name
    assert closed.client.get("/metrics").status_code == 401


def test_prometheus_key_opens_the_metrics_alone(closed: PodProcess) -> None:
    """It is in the key file with that scope."""
    headers = {"Authorization": "Bearer key-of-prometheus"}
    assert "tgi_queue_size" in closed.client.get("/metrics", headers=headers).text
    assert closed.client.post("/generate", json={"inputs": "It was"}, headers=headers).status_code == 403


def test_the_curl_of_the_notes_works(closed: PodProcess) -> None:
    """Helm prints a request that a server of the same values answers: with a key, under a published path."""
    address, *options = curl_of(CLOSED)[1:]
    headers = dict(text.split(": ", 1) for flag, text in pairwise(options) if flag == "-H")
    (body,) = [text for flag, text in pairwise(options) if flag == "-d"]
    assert headers["Authorization"] == "Bearer $KEY"
    headers["Authorization"] = "Bearer key-of-a-client"
    path = address.removeprefix("http://127.0.0.1:8080")
    assert path == "/falcon/generate"
    answer = closed.client.post(path, content=body, headers=headers)
    assert answer.status_code == 200
    assert answer.json()["generated_text"]


def test_the_hubs_library_reads_the_token_file(tmp_path: Path) -> None:
    """The variable that the chart sets names the file, so that the token is in no environment."""
    objects = render({"hub": {"token": "hf_of-the-chart"}})
    variable = "HF_TOKEN_PATH"
    file = tmp_path / Path(only(objects, "ConfigMap")["data"][variable]).name
    file.write_text(only(objects, "Secret")["stringData"][file.name])
    environment = {
        name: value for name, value in os.environ.items() if not name.startswith(("HF_TOKEN", "HUGGING_FACE"))
    }
    program = "from huggingface_hub import get_token; print(get_token())"
    found = subprocess.check_output(
        [sys.executable, "-c", program], env={**environment, variable: str(file)}, text=True
    )
    assert found.strip() == "hf_of-the-chart"


def curl_of(values: dict[str, Any]) -> list[str]:
    """The words of the command in the notes."""
    install = ("install", RELEASE, CHART, "--dry-run=client", "--values", CPU, "--values", "-")
    notes = run_helm(*install, stdin=dumps(values))
    text = notes.partition("NOTES:")[2].replace("\\\n", " ")
    (line,) = [line for line in text.splitlines() if line.startswith("  curl ")]
    return shlex.split(line)
