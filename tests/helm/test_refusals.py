"""Bad values are refused before anything is installed, with a line that names the value."""

from typing import Any

import pytest
from scripts.chart.helm import RELEASES, Release

from charts import Refused, nested, render

CLAIM = {"type": "persistentVolumeClaim"}

each_helm = pytest.mark.parametrize("release", RELEASES, ids=lambda release: release.version)


@each_helm
@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("replicaCount", 2),
        ("replicas", -1),
        ("replicas", "two"),
        ("model.num_shard", 2),
        ("image.pullPolicy", "Sometimes"),
        ("image.digest", "sha256:12"),
        ("options.MAX_INPUT_TOKENS", 0),
        ("options.MAX_INPUT_TOKENS", "many"),
        ("options.MAX_INPUTS", 1),
        ("options.PORT", 80),
        ("options.KV_CACHE_DTYPE", "int4"),
        ("extraEnv", [{"nam": "A", "value": "b"}]),
        ("auth.apiKeys", ["with a space too many"]),
        ("auth.apiKeys", ["#comment-of-a-key-file"]),
        ("gpus.count", -1),
        ("resources.limits.cores", 2),
        ("resources.requests.memory", "8 GB"),
        ("shm.size", "big"),
        ("weights.type", "nfs"),
        ("weights.accessModes", ["ReadMostly"]),
        ("weights.hostPath", "data"),
        ("extraVolumes", [{"name": "host", "hostPath": {"path": "/"}}]),
        ("autoscaling.minReplicas", 0),
        ("autoscaling.kvPercent", 101),
        ("multiHost.hosts", 1),
        ("strategy.maxSurge", "half"),
        ("probes.liveness.timeoutSeconds", 1),
        ("termination.drainSeconds", -5),
        ("service.port", 70_000),
        ("containerPort", 80),
        ("networkPolicy.from", [{"namespace": "gateway"}]),
        ("monitoring.podMonitor.interval", "often"),
        ("ingress.path", "falcon"),
        ("httpRoute.path", "/a/../b"),
        ("httpRoute.timeout", "forever"),
        ("inferencePool.failureMode", "FailMaybe"),
        ("tolerations", [{"key": "gpu", "effects": "NoSchedule"}]),
        ("affinity", {"nodeAfinity": {}}),
        ("commonLabels", {"team": "a b"}),
        ("openshift", "yes"),
    ],
)
def test_the_schema_refuses(release: Release, name: str, value: Any) -> None:
    """The message has the name of what is wrong."""
    with pytest.raises(Refused, match="values don't meet the specifications of the schema") as refused:
        render(nested(name, value), release=release)
    assert name.rpartition(".")[2] in str(refused.value)


@pytest.mark.parametrize(
    ("values", "message"),
    [
        ({"weights": {"type": "existingClaim"}}, "name it in weights.existingClaim"),
        ({"weights": CLAIM, "replicas": 2}, r"set weights.accessModes to \[ReadWriteMany\]"),
        ({"weights": CLAIM, "autoscaling": {"type": "hpa"}}, "several pods share the claim"),
        ({"auth": {"apiKeys": ["key-of-one"], "existingSecret": "keys"}}, "auth.apiKeys and auth.existingSecret"),
        ({"hub": {"token": "hf_a", "existingSecret": "hub"}}, "hub.token and hub.existingSecret"),
        ({"auth": {"apiKeys": ["key-of-one"]}, "monitoring": {"podMonitor": {"enabled": True}}}, "set auth.metricsKey"),
        ({"auth": {"metricsKey": "key-of-one"}}, "would be the only key"),
        ({"auth": {"apiKeys": ["key-of-one"], "metricsKey": "0" * 64}}, "the form of a SHA-256"),
        ({"strategy": {"maxUnavailable": 0}}, "no update could begin"),
        ({"strategy": {"maxSurge": "0%", "maxUnavailable": "0%"}}, "no update could begin"),
        ({"autoscaling": {"type": "hpa", "minReplicas": 5}}, "autoscaling.maxReplicas is less"),
        ({"probes": {"liveness": {"failureThreshold": 1}}}, "liveness must wait longer"),
        ({"model": {"shards": 2}}, "each shard needs a GPU"),
        ({"multiHost": {"enabled": True}, "weights": {"type": "hostPath"}}, "multiHost.keysSecret"),
        ({"multiHost": {"enabled": True, "keysSecret": "keys"}}, "weights that every machine mounts"),
        ({"httpRoute": {"enabled": True}}, "httpRoute.parentRefs"),
        (
            {
                "ingress": {"enabled": True},
                "httpRoute": {"enabled": True, "path": "/falcon", "parentRefs": [{"name": "gateway"}]},
            },
            "one --root-path",
        ),
        ({"inferencePool": {"enabled": True}}, "inferencePool.endpointPicker"),
    ],
)
def test_values_that_contradict_each_other_are_refused(values: dict[str, Any], message: str) -> None:
    """The message says which value to set."""
    with pytest.raises(Refused, match=f"values: .*{message}"):
        render(values)
