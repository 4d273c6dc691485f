"""The pods: how they start, end, are updated, what they may do and what they mount."""

import json
from typing import Any

import pytest
from scripts.chart.__main__ import project_version

from charts import NAMESPACE, Object, container_of, only, pod_of, render

WRITABLE = {"/data", "/tmp", "/dev/shm"}


def mounts(values: dict[str, Any]) -> dict[str, Object]:
    """Each mount's volume by its path."""
    pod = pod_of(render(values))
    volumes = {volume["name"]: volume for volume in pod["volumes"]}
    return {mount["mountPath"]: volumes[mount["name"]] for mount in pod["containers"][0]["volumeMounts"]}


@pytest.mark.parametrize(("drain", "sleep", "margin"), [(90, 10, 15), (0, 1, 10), (3600, 600, 30)])
def test_the_grace_period_covers_the_drain(drain: int, sleep: int, margin: int) -> None:
    """SIGKILL comes after preStop, the server's own time for running requests, and a margin."""
    termination = {"drainSeconds": drain, "preStopSeconds": sleep, "marginSeconds": margin}
    pod = pod_of(render({"termination": termination}))
    server = pod["containers"][0]
    assert pod["terminationGracePeriodSeconds"] == drain + sleep + margin
    assert server["lifecycle"]["preStop"] == {"sleep": {"seconds": sleep}}
    assert server["args"][server["args"].index("--graceful-termination-timeout") + 1] == str(drain)


@pytest.mark.parametrize(("seconds", "period", "failures"), [(1800, 10, 180), (95, 10, 10), (7200, 7, 1029)])
def test_the_startup_probe_lasts_as_long_as_a_load_may_take(seconds: int, period: int, failures: int) -> None:
    """Periods are rounded up."""
    server = container_of(render({"probes": {"startup": {"seconds": seconds, "periodSeconds": period}}}))
    assert server["startupProbe"]["failureThreshold"] == failures


def test_liveness_is_looser_than_readiness_and_asks_less() -> None:
    """A pod that cannot make tokens gets no requests; one that does not answer at all is restarted, later."""
    server = container_of(render())
    readiness, liveness = server["readinessProbe"], server["livenessProbe"]
    assert readiness["httpGet"]["path"] == "/health"
    assert liveness["httpGet"]["path"] == "/livez"
    assert min(probe["timeoutSeconds"] for probe in (readiness, liveness, server["startupProbe"])) >= 5
    seconds = [probe["periodSeconds"] * probe["failureThreshold"] for probe in (readiness, liveness)]
    assert seconds[1] > 2 * seconds[0]


@pytest.mark.parametrize(
    ("values", "surge", "unavailable"),
    [
        ({}, 0, 1),
        ({"gpus": {"count": 0}}, 1, 0),
        ({"gpus": {"count": 0}, "weights": {"type": "persistentVolumeClaim"}}, 0, 1),
        ({"strategy": {"maxSurge": 1}}, 1, 0),
        ({"strategy": {"maxSurge": "25%", "maxUnavailable": "10%"}}, "25%", "10%"),
    ],
)
def test_an_update_needs_no_spare_gpu(values: dict[str, Any], surge: int | str, unavailable: int | str) -> None:
    """With GPUs, or a claim of one node, an old pod goes before its successor comes; on CPUs the successor is first."""
    strategy = only(render(values), "Deployment")["spec"]["strategy"]["rollingUpdate"]
    assert strategy == {"maxSurge": surge, "maxUnavailable": unavailable}


def test_a_pod_has_no_rights() -> None:
    """As the image wants it: uid 1000, gid 0, a read-only root, no capabilities, no token of the API server."""
    pod = pod_of(render())
    assert pod["automountServiceAccountToken"] is False
    assert pod["securityContext"] == {
        "runAsNonRoot": True,
        "runAsUser": 1000,
        "runAsGroup": 0,
        "fsGroup": 0,
        "fsGroupChangePolicy": "OnRootMismatch",
        "seccompProfile": {"type": "RuntimeDefault"},
    }
    assert pod["containers"][0]["securityContext"] == {
        "allowPrivilegeEscalation": False,
        "readOnlyRootFilesystem": True,
        "privileged": False,
        "capabilities": {"drop": ["ALL"]},
    }


def test_openshift_chooses_the_user() -> None:
    """Its admission refuses pods that name one."""
    context = pod_of(render({"openshift": True}))["securityContext"]
    assert context == {"runAsNonRoot": True, "seccompProfile": {"type": "RuntimeDefault"}}


@pytest.mark.parametrize("values", [{}, {"gpus": {"count": 0}}, {"shm": {"size": "8Gi"}}], ids=str)
def test_shared_memory_always_has_a_size(values: dict[str, Any]) -> None:
    """The container runtime's own 64 MB would end shards with SIGBUS."""
    size = values.get("shm", {}).get("size", "1Gi")
    assert mounts(values)["/dev/shm"]["emptyDir"] == {"medium": "Memory", "sizeLimit": size}


@pytest.mark.parametrize(
    ("weights", "volume"),
    [
        ({}, {"emptyDir": {"sizeLimit": "100Gi"}}),
        ({"type": "persistentVolumeClaim"}, {"persistentVolumeClaim": {"claimName": "demo-peregrine"}}),
        (
            {"type": "existingClaim", "existingClaim": "falcon"},
            {"persistentVolumeClaim": {"claimName": "falcon"}},
        ),
        ({"type": "hostPath", "hostPath": "/models"}, {"hostPath": {"path": "/models", "type": "Directory"}}),
    ],
)
def test_weights_come_from_where_the_user_says(weights: dict[str, Any], volume: Object) -> None:
    """/data is a folder of the pod, a claim of the chart or of the user, or a folder of the node."""
    assert mounts({"weights": weights})["/data"] == {"name": "data", **volume}


def test_a_claim_outlives_the_release() -> None:
    """Its weights took long to load; `keep: false` lets it go."""
    claim = {"type": "persistentVolumeClaim", "storageClass": "fast", "size": "30Gi"}
    kept = only(render({"weights": claim}), "PersistentVolumeClaim")
    assert kept["metadata"]["annotations"] == {"helm.sh/resource-policy": "keep"}
    assert kept["spec"]["storageClassName"] == "fast"
    gone = only(render({"weights": {**claim, "keep": False}}), "PersistentVolumeClaim")
    assert "annotations" not in gone["metadata"]


def test_the_image_follows_the_device() -> None:
    """Without GPUs it is the one for CPUs; a digest wins over tags."""
    digest = f"sha256:{'0' * 64}"
    assert container_of(render())["image"] == f"peregrine:{project_version()}-cuda"
    assert container_of(render({"gpus": {"count": 0}}))["image"] == f"peregrine:{project_version()}-cpu"
    assert container_of(render({"image": {"tag": "edge"}}))["image"] == "peregrine:edge"
    assert container_of(render({"image": {"digest": digest}}))["image"] == f"peregrine@{digest}"


def test_a_server_with_gpus_does_not_start_on_the_cpu() -> None:
    """It would be a hundred times slower; options win over what the chart sets."""
    assert environment({})["DEVICE"] == "cuda"
    assert "DEVICE" not in environment({"gpus": {"count": 0}})
    assert environment({"options": {"DEVICE": "cpu"}})["DEVICE"] == "cpu"


def test_large_numbers_reach_the_server_as_digits() -> None:
    """Helm reads numbers as floats, and would print this one as 6.7108864e+07."""
    options = {"RESPONSE_STORE_BYTES": 67_108_864, "CUDA_MEMORY_FRACTION": 0.9, "JSON_OUTPUT": True}
    assert environment({"options": options}).items() >= {
        ("RESPONSE_STORE_BYTES", "67108864"),
        ("CUDA_MEMORY_FRACTION", "0.9"),
        ("JSON_OUTPUT", "true"),
    }


def test_a_change_of_options_is_a_rollout() -> None:
    """The pod template changes with the ConfigMap."""
    templates = [
        json.dumps(only(render({"options": options}), "Deployment")["spec"]["template"])
        for options in ({}, {"MAX_INPUT_TOKENS": 512}, {"MAX_INPUT_TOKENS": 512})
    ]
    assert templates[0] != templates[1] == templates[2]


def test_keys_and_token_are_files() -> None:
    """No secret is in the pod's environment, in the ConfigMap or in the arguments."""
    values = {
        "auth": {"apiKeys": ["key-of-a-client", "key-of-an-operator infer,admin"], "metricsKey": "key-of-prometheus"},
        "hub": {"token": "hf_token"},
    }
    objects = render(values)
    secret = only(objects, "Secret")["stringData"]
    assert secret["api-keys"].splitlines() == [
        "key-of-a-client",
        "key-of-an-operator infer,admin",
        "key-of-prometheus metrics",
    ]
    others = json.dumps([each for each in objects if each["kind"] != "Secret"])
    assert not any(text in others for text in ("key-of", "hf_token"))
    data = only(objects, "ConfigMap")["data"]
    assert data["API_KEY_FILE"] == "/etc/peregrine/keys/api-keys"
    assert data["HF_TOKEN_PATH"] == "/etc/peregrine/hub/token"
    assert set(mounts(values)) == {*WRITABLE, "/etc/peregrine/keys", "/etc/peregrine/hub"}


def test_secrets_of_the_user_replace_the_charts() -> None:
    """Then the chart makes none."""
    values = {"auth": {"existingSecret": "keys"}, "hub": {"existingSecret": "hub-token"}}
    assert not [each for each in render(values) if each["kind"] == "Secret"]
    assert mounts(values)["/etc/peregrine/keys"]["secret"]["secretName"] == "keys"
    assert mounts(values)["/etc/peregrine/hub"]["secret"]["secretName"] == "hub-token"


def test_replicas_are_left_to_the_autoscaler() -> None:
    """Otherwise each upgrade would undo what it chose."""
    spec = only(render({"autoscaling": {"type": "hpa"}}), "Deployment")["spec"]
    assert "replicas" not in spec
    assert only(render({"replicas": 0}), "Deployment")["spec"]["replicas"] == 0


def test_objects_are_in_the_releases_namespace_and_have_its_labels() -> None:
    """Labels of commonLabels are everywhere, and those that select pods cannot be overridden."""
    for each in render({"commonLabels": {"team": "text", "app.kubernetes.io/name": "other"}}):
        assert each["metadata"]["namespace"] == NAMESPACE
        labels = each["metadata"]["labels"]
        assert (labels["team"], labels["app.kubernetes.io/name"]) == ("text", "peregrine")


def environment(values: dict[str, Any]) -> dict[str, str]:
    """Variables that the ConfigMap sets."""
    data: dict[str, str] = only(render(values), "ConfigMap")["data"]
    return data
