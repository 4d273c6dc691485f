"""How requests, scrapes and scaling find the pods, and what may connect to them."""

from typing import Any

import pytest

from charts import NAMESPACE, Object, container_of, only, render

SERVER = {
    "app.kubernetes.io/name": "peregrine",
    "app.kubernetes.io/instance": "demo",
    "app.kubernetes.io/component": "server",
}
ROUTE: dict[str, Any] = {"enabled": True, "parentRefs": [{"name": "gateway"}]}


def test_everything_that_selects_pods_selects_these() -> None:
    """Selectors are part of the pods' labels."""
    monitors = {part: {"enabled": True} for part in ("podMonitor", "serviceMonitor")}
    pool = {"enabled": True, "endpointPicker": "picker"}
    objects = render({"monitoring": monitors, "inferencePool": pool, "commonLabels": {"team": "text"}})
    labels = only(objects, "Deployment")["spec"]["template"]["metadata"]["labels"]
    selectors = [
        only(objects, "Deployment")["spec"]["selector"]["matchLabels"],
        only(objects, "Service")["spec"]["selector"],
        only(objects, "PodDisruptionBudget")["spec"]["selector"]["matchLabels"],
        only(objects, "NetworkPolicy")["spec"]["podSelector"]["matchLabels"],
        only(objects, "PodMonitor")["spec"]["selector"]["matchLabels"],
        only(objects, "InferencePool")["spec"]["selector"]["matchLabels"],
    ]
    assert all(selector.items() <= labels.items() for selector in selectors)
    monitor = only(objects, "ServiceMonitor")["spec"]["selector"]["matchLabels"]
    assert monitor.items() <= only(objects, "Service")["metadata"]["labels"].items()


def test_the_port_needs_no_capability() -> None:
    """The container listens above 1024, where PORT says, and the Service offers 80."""
    objects = render()
    assert container_of(objects)["ports"] == [{"name": "http", "containerPort": 8080}]
    assert only(objects, "ConfigMap")["data"]["PORT"] == "8080"
    (port,) = only(objects, "Service")["spec"]["ports"]
    assert (port["port"], port["targetPort"]) == (80, "http")


def test_the_network_policy_opens_what_is_needed() -> None:
    """Ingress to the server's port; egress to DNS and, unless the weights are there, to the Hub."""
    spec = only(render(), "NetworkPolicy")["spec"]
    assert spec["policyTypes"] == ["Ingress", "Egress"]
    assert spec["ingress"] == [{"ports": [{"port": "http", "protocol": "TCP"}]}]
    assert [port["port"] for rule in spec["egress"] for port in rule["ports"]] == [53, 53, 443]
    offline = only(render({"hub": {"offline": True}}), "NetworkPolicy")["spec"]["egress"]
    assert [port["port"] for rule in offline for port in rule["ports"]] == [53, 53]


def test_the_network_policy_takes_peers_and_egress_of_the_user() -> None:
    """Only the namespace of a gateway comes in, and traces go out."""
    peer = {"namespaceSelector": {"matchLabels": {"kubernetes.io/metadata.name": "gateway"}}}
    egress = {"ports": [{"port": 4317, "protocol": "TCP"}]}
    spec = only(render({"networkPolicy": {"from": [peer], "extraEgress": [egress]}}), "NetworkPolicy")["spec"]
    assert spec["ingress"][0]["from"] == [peer]
    assert spec["egress"][-1] == egress


@pytest.mark.parametrize("kind", ["PodMonitor", "ServiceMonitor"])
def test_prometheus_scrapes_with_a_key_where_clients_need_one(kind: str) -> None:
    """It reads the key from the Secret, and its labels are those that an operator's Prometheus selects."""
    monitor = {"enabled": True, "labels": {"release": "kube-prometheus-stack"}, "interval": "5s"}
    values = {"monitoring": {kind[0].lower() + kind[1:]: monitor}, "auth": {"existingSecret": "keys"}}
    found = only(render(values), kind)
    (endpoint,) = found["spec"].get("podMetricsEndpoints") or found["spec"]["endpoints"]
    assert endpoint == {
        "port": "http",
        "path": "/metrics",
        "interval": "5s",
        "authorization": {"type": "Bearer", "credentials": {"name": "keys", "key": "metrics-key"}},
    }
    assert found["metadata"]["labels"]["release"] == "kube-prometheus-stack"


def test_a_published_path_is_the_servers_root_path() -> None:
    """Ingress or route leads there, whether the proxy strips the path or not."""
    for part, more in (("ingress", {"enabled": True}), ("httpRoute", ROUTE)):
        objects = render({part: {**more, "path": "/falcon"}})
        assert only(objects, "ConfigMap")["data"]["ROOT_PATH"] == "/falcon"
    assert "ROOT_PATH" not in only(render({"ingress": {"enabled": True}}), "ConfigMap")["data"]


def test_an_ingress_leads_to_the_service() -> None:
    """With TLS where a Secret is named."""
    ingress = only(render({"ingress": {"enabled": True, "host": "llm.test", "tlsSecret": "cert"}}), "Ingress")["spec"]
    backend = ingress["rules"][0]["http"]["paths"][0]["backend"]["service"]
    assert backend == {"name": "demo-peregrine", "port": {"name": "http"}}
    assert ingress["tls"] == [{"secretName": "cert", "hosts": ["llm.test"]}]


def test_a_route_has_no_time_limit_and_leads_to_the_pool_if_there_is_one() -> None:
    """Streams are long; an endpoint picker chooses the pod where one is installed."""
    (rule,) = only(render({"httpRoute": ROUTE}), "HTTPRoute")["spec"]["rules"]
    assert rule["timeouts"] == {"request": "0s"}
    assert rule["backendRefs"] == [{"name": "demo-peregrine", "port": 80}]
    pool = {"enabled": True, "endpointPicker": "picker"}
    objects = render({"httpRoute": ROUTE, "inferencePool": pool})
    (rule,) = only(objects, "HTTPRoute")["spec"]["rules"]
    assert rule["backendRefs"] == [
        {"name": "demo-peregrine", "group": "inference.networking.k8s.io", "kind": "InferencePool"}
    ]
    assert only(objects, "InferencePool")["spec"]["targetPorts"] == [{"number": 8080}]


def test_hpa_scales_on_queue_and_kv_cache() -> None:
    """Averages of the pods; a replica goes only after minutes in which it was not needed."""
    objects = render({"autoscaling": {"type": "hpa", "queueSize": 5, "kvPercent": 75}})
    spec = only(objects, "HorizontalPodAutoscaler")["spec"]
    targets = {each["pods"]["metric"]["name"]: each["pods"]["target"]["averageValue"] for each in spec["metrics"]}
    assert targets == {"tgi_queue_size": "5", "peregrine_kv_cache_usage_ratio": "750m"}
    assert spec["scaleTargetRef"] == {"apiVersion": "apps/v1", "kind": "Deployment", "name": "demo-peregrine"}
    assert spec["behavior"]["scaleDown"]["stabilizationWindowSeconds"] == 300


def test_keda_scales_on_the_same() -> None:
    """Sums over this release's pods and no other's, divided by the replicas; a fallback while Prometheus is away."""
    spec = only(render({"autoscaling": {"type": "keda", "queueSize": 5, "kvPercent": 75}}), "ScaledObject")["spec"]
    series = f'{{namespace="{NAMESPACE}",pod=~"demo-peregrine-[a-z0-9]+-[a-z0-9]{{5}}"}}'
    queries = {each["metadata"]["query"]: each["metadata"]["threshold"] for each in spec["triggers"]}
    assert queries == {
        f"sum(tgi_queue_size{series})": "5",
        f"sum(peregrine_kv_cache_usage_ratio{series})": "0.75",
    }
    assert {each["metricType"] for each in spec["triggers"]} == {"AverageValue"}
    assert spec["fallback"] == {"failureThreshold": 3, "replicas": 2}
    assert spec["minReplicaCount"] >= 1


def test_replicas_are_spread_over_nodes() -> None:
    """By preference, so that a small cluster still runs them all."""
    (constraint,) = _pod()["topologySpreadConstraints"]
    assert constraint["topologyKey"] == "kubernetes.io/hostname"
    assert constraint["whenUnsatisfiable"] == "ScheduleAnyway"
    assert constraint["labelSelector"]["matchLabels"] == SERVER
    assert "topologySpreadConstraints" not in _pod(topologySpread={"enabled": False})


def _pod(**values: Any) -> Object:
    spec: Object = only(render(values), "Deployment")["spec"]["template"]["spec"]
    return spec
