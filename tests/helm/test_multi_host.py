"""One model over several machines: a LeaderWorkerSet whose first pod has the router."""

import re
import subprocess
from pathlib import Path
from typing import Any

import pytest
from scripts.chart.values import CHART

from charts import Object, only, render

EXAMPLE = CHART / "examples" / "2x4xa100-180b.yaml"
ADDRESS = "demo-peregrine-0.demo-peregrine.llm"

KEYS = "/etc/peregrine/shard-keys/shard.keys"
OPTIONS = f"--shard-keys {KEYS} --interface eth0"


def templates(values: dict[str, Any] | None = None) -> tuple[Object, Object]:
    """The pods with the router and those without."""
    group = only(render(values or {}, EXAMPLE), "LeaderWorkerSet")["spec"]["leaderWorkerTemplate"]
    return group["leaderTemplate"], group["workerTemplate"]


def shard_commands(pod: Object, worker_index: int, folder: Path) -> list[str]:
    """Commands of a worker's container, with programs that print their arguments for `peregrine` and tini."""
    (container,) = pod["spec"]["containers"]
    environment = {"LWS_LEADER_ADDRESS": ADDRESS, "LWS_WORKER_INDEX": str(worker_index)}
    command = [_expanded(each, environment) for each in (*container["command"], *container["args"])]
    # `wait -n` ends with the first; the stubs end at once, so wait for all of them here.
    command = [each.replace("wait -n", "wait") for each in command]
    _write_program(folder / "peregrine", 'echo "peregrine $*"')
    _write_program(folder / "tini", 'while [ "$1" != -- ]; do shift; done; shift; exec "$@"')
    done = subprocess.run(
        command, capture_output=True, text=True, check=True, env={**environment, "PATH": f"{folder}:/usr/bin:/bin"}
    )
    return sorted(done.stdout.splitlines())


def test_the_group_has_one_pod_a_machine() -> None:
    """It is restarted as a whole, and replaced as a whole, one group at a time."""
    spec = only(render({}, EXAMPLE), "LeaderWorkerSet")["spec"]
    assert spec["leaderWorkerTemplate"]["size"] == 2
    assert spec["leaderWorkerTemplate"]["restartPolicy"] == "RecreateGroupOnPodRestart"
    assert spec["rolloutStrategy"]["rollingUpdateConfiguration"] == {"maxSurge": 0, "maxUnavailable": 1}


def test_the_router_waits_for_all_shards() -> None:
    """Its own and those of the other machines."""
    router, _ = templates()
    (server,) = router["spec"]["containers"]
    assert server["args"][server["args"].index("--num-shard") + 1] == "8"
    data = only(render({}, EXAMPLE), "ConfigMap")["data"]
    assert data["SHARD_ADDRESS"] == "tcp://eth0:5555"
    assert data["LOCAL_SHARDS"] == "4"
    assert data["SHARD_KEYS"] == KEYS


@pytest.mark.parametrize("worker_index", [1, 2])
def test_each_gpu_of_a_worker_has_a_rank(worker_index: int, tmp_path: Path) -> None:
    """Ranks go on where those of the machine before ended."""
    _, worker = templates({"multiHost": {"hosts": 3}})
    first = worker_index * 4
    assert shard_commands(worker, worker_index, tmp_path) == [
        f"peregrine shard --router tcp://{ADDRESS}:5555 --rank {rank} --num-shard 12 --gpu {rank - first} {OPTIONS}"
        for rank in sorted(range(first, first + 4), key=str)
    ]


def test_a_worker_with_one_shard_needs_no_shell(tmp_path: Path) -> None:
    """Kubernetes puts the pod's index into the arguments."""
    _, worker = templates({"gpus": {"count": 1}})
    assert "bash" not in worker["spec"]["containers"][0]["command"]
    (command,) = shard_commands(worker, 1, tmp_path)
    assert command == f"peregrine shard --router tcp://{ADDRESS}:5555 --rank 1 --num-shard 2 {OPTIONS}"


def test_shards_outlive_the_drain_of_their_router() -> None:
    """All pods of a group are told to end at once; a shard that did would cut the streams."""
    router, worker = templates({"termination": {"preStopSeconds": 10, "drainSeconds": 90}})
    (server,), (shards,) = router["spec"]["containers"], worker["spec"]["containers"]
    assert server["lifecycle"]["preStop"]["sleep"]["seconds"] == 10
    assert shards["lifecycle"]["preStop"]["sleep"]["seconds"] == 100
    assert worker["spec"]["terminationGracePeriodSeconds"] == router["spec"]["terminationGracePeriodSeconds"]


def test_requests_go_to_the_router_alone() -> None:
    """Service and disruption budget select the pods that listen."""
    objects = render({}, EXAMPLE)
    router, worker = templates()
    for selector in (
        only(objects, "Service")["spec"]["selector"],
        only(objects, "PodDisruptionBudget")["spec"]["selector"]["matchLabels"],
    ):
        assert selector.items() <= router["metadata"]["labels"].items()
        assert not selector.items() <= worker["metadata"]["labels"].items()


def test_the_pods_of_a_release_may_exchange() -> None:
    """On any port, as NCCL chooses its own; nobody else may connect to them."""
    spec = only(render({}, EXAMPLE), "NetworkPolicy")["spec"]
    peers = [rule for rule in spec["ingress"] if "ports" not in rule]
    assert peers == [{"from": [{"podSelector": spec["podSelector"]}]}]


def test_both_kinds_of_pod_have_the_keys_and_no_rights() -> None:
    """The Secret of `peregrine keys`, read-only; security as on one machine."""
    router, worker = templates()
    alone = only(render(), "Deployment")["spec"]["template"]["spec"]
    keys = {"name": "shard-keys", "mountPath": "/etc/peregrine/shard-keys", "readOnly": True}
    for pod in (router["spec"], worker["spec"]):
        (container,) = pod["containers"]
        assert keys in container["volumeMounts"]
        assert pod["securityContext"] == alone["securityContext"]
        assert container["securityContext"] == alone["containers"][0]["securityContext"]


def test_groups_are_scaled_by_their_routers() -> None:
    """The autoscaler names the LeaderWorkerSet, and asks for the series of pods with a router."""
    spec = only(render({"autoscaling": {"type": "keda"}}, EXAMPLE), "ScaledObject")["spec"]
    assert spec["scaleTargetRef"]["kind"] == "LeaderWorkerSet"
    assert 'pod=~"demo-peregrine-[0-9]+"' in spec["triggers"][0]["metadata"]["query"]


def _write_program(path: Path, line: str) -> None:
    path.write_text(f"#!/bin/sh\n{line}\n")
    path.chmod(0o755)


def _expanded(text: str, environment: dict[str, str]) -> str:
    """Kubernetes' `$(NAME)`, up to the first parenthesis: a name that it does not know stays as it is."""
    return re.sub(r"\$\((.*?)\)", lambda match: environment.get(match[1], match[0]), text, flags=re.DOTALL)
