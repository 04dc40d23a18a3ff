"""Objects to tables: counts against the JSON itself, owners, and what changes while it is watched."""

from __future__ import annotations

import copy
import json
from collections import Counter
from pathlib import Path
from typing import Any

import pytest

from kubetape.capture.kubernetes.kinds import KIND_NAMES
from kubetape.capture.kubernetes.pods import time_ns
from kubetape.capture.kubernetes.store import Store

DATA = Path(__file__).parents[3] / "data" / "kubernetes"
SECOND = 1_000_000_000

Json = dict[str, Any]


def _items() -> list[Json]:
    items: list[Json] = json.loads((DATA / "objects.json").read_text())["items"]
    return items


def _store(items: list[Json]) -> Store:
    store = Store()
    for obj in items:
        store.add(obj, "start", SECOND)
    return store


def _named(rows: list[Json], name: str) -> Json:
    (row,) = [row for row in rows if row["name"] == name]
    return row


def _endpoint_count(objects: list[Json]) -> int:
    """Addresses times ports of slices, and of the Endpoints of services without slices."""
    sliced = {
        (o["metadata"]["namespace"], o["metadata"]["labels"]["kubernetes.io/service-name"])
        for o in objects
        if o["kind"] == "EndpointSlice"
    }
    count = 0
    for o in objects:
        if o["kind"] == "EndpointSlice":
            addresses = sum(len(e["addresses"]) for e in o.get("endpoints") or [])
            count += addresses * len(o.get("ports") or [None])
        elif o["kind"] == "Endpoints" and (o["metadata"]["namespace"], o["metadata"]["name"]) not in sliced:
            for subset in o.get("subsets") or []:
                addresses = len(subset.get("addresses") or []) + len(subset.get("notReadyAddresses") or [])
                count += addresses * len(subset.get("ports") or [None])
    return count


@pytest.mark.corpus
def test_row_counts_are_those_of_the_json(shared_k8s: Path) -> None:
    objects = [
        obj
        for path in sorted((shared_k8s / "objects").glob("*.json"))
        for obj in json.loads(path.read_text())["items"]
        if (obj["kind"] in KIND_NAMES and not path.name.startswith("events.events")) or obj["kind"] == "Rollout"
    ]
    kinds = Counter(o["kind"] for o in objects)
    rows = _store(objects).rows()
    pods = [o for o in objects if o["kind"] == "Pod"]
    assert len(rows["k8s_pod"]) == len(pods) == 40
    assert len(rows["k8s_container"]) == sum(
        len(p["spec"].get(group) or [])
        for p in pods
        for group in ("containers", "initContainers", "ephemeralContainers")
    )
    assert len(rows["k8s_service"]) == sum(
        max(1, len(o["spec"].get("ports") or [])) for o in objects if o["kind"] == "Service"
    )
    assert len(rows["k8s_endpoint"]) == _endpoint_count(objects) > 20
    assert len(rows["k8s_node"]) == kinds["Node"] == 5
    assert len(rows["k8s_event"]) == kinds["Event"] == 250
    workloads = (
        "Deployment",
        "ReplicaSet",
        "StatefulSet",
        "DaemonSet",
        "Job",
        "CronJob",
        "ReplicationController",
        "Rollout",
    )
    assert len(rows["k8s_workload"]) == sum(kinds[k] for k in workloads)
    assert len(rows["k8s_object"]) == sum(kinds.values()) - kinds["Event"]


@pytest.mark.parametrize(
    ("pod", "owner", "direct", "version"),
    [
        ("api-557c4df64b-7vx4l", ("Deployment", "api"), ("ReplicaSet", "api-557c4df64b"), "557c4df64b"),
        ("checkout-6d5f7c9b8-cw69q", ("Rollout", "checkout"), ("ReplicaSet", "checkout-6d5f7c9b8"), "6d5f7c9b8"),
        ("settle-29923675-29xzn", ("CronJob", "settle"), ("Job", "settle-29923675"), "3.11-slim"),
        ("postgres-0", ("StatefulSet", "postgres"), ("StatefulSet", "postgres"), "postgres-577bcd676c"),
        ("node-agent-gjscw", ("DaemonSet", "node-agent"), ("DaemonSet", "node-agent"), "779d665885"),
        ("node-local-proxy-node-a", ("Node", "node-local-proxy"), ("Node", "node-a"), "1.36"),
        ("init-stuck", (None, None), (None, None), "1.36"),
    ],
)
def test_owner_a_person_knows(
    pod: str, owner: tuple[str | None, str | None], direct: tuple[str | None, str | None], version: str
) -> None:
    row = _named(_store(_items()).rows()["k8s_pod"], pod)
    assert (row["owner_kind"], row["owner_name"]) == owner
    assert (row["controller_kind"], row["controller_name"]) == direct
    assert row["version"] == version


def test_owner_where_only_pods_are_known() -> None:
    rows = _store([o for o in _items() if o["kind"] == "Pod"]).rows()["k8s_pod"]
    assert _named(rows, "api-557c4df64b-7vx4l")["owner_kind"] == "Deployment"
    assert _named(rows, "api-557c4df64b-7vx4l")["owner_name"] == "api"
    # A Rollout's ReplicaSet looks alike but carries another label: no guess.
    assert _named(rows, "checkout-6d5f7c9b8-cw69q")["owner_kind"] == "ReplicaSet"
    assert _named(rows, "settle-29923675-29xzn")["owner_kind"] == "Job"


def test_operators_object_above_a_statefulset_is_not_the_workload() -> None:
    items = _items()
    stateful = next(o for o in items if o["kind"] == "StatefulSet")
    stateful["metadata"]["ownerReferences"] = [
        {"apiVersion": "db.example.com/v1", "kind": "PostgresCluster", "name": "main", "uid": "1", "controller": True}
    ]
    job = next(o for o in items if o["kind"] == "Job")
    job["metadata"]["ownerReferences"][0] |= {
        "apiVersion": "spark.example.com/v1",
        "kind": "SparkApplication",
        "name": "nightly",
    }
    store = _store(items)
    rows = store.rows()
    assert _named(rows["k8s_pod"], "postgres-0")["owner_kind"] == "StatefulSet"
    assert _named(rows["k8s_workload"], "postgres")["owner_kind"] == "PostgresCluster"
    found = _named(rows["k8s_pod"], "settle-29923675-29xzn")
    assert (found["owner_kind"], found["owner_name"]) == ("SparkApplication", "nightly")
    assert store.unknown_owners() == [
        ("db.example.com/v1", "PostgresCluster", "data", "main"),
        ("spark.example.com/v1", "SparkApplication", "payments", "nightly"),
    ]


def test_services_of_every_type() -> None:
    rows = _store(_items()).rows()["k8s_service"]
    headless = _named(rows, "postgres-headless")
    assert (headless["headless"], headless["cluster_ips"], headless["port"]) == (True, None, 5432)
    external = _named(rows, "warehouse")
    assert (external["type"], external["external_name"], external["port"]) == (
        "ExternalName",
        "warehouse.example.com",
        None,
    )
    balancer = [row for row in rows if row["name"] == "web-lb"]
    assert {row["external_ips"] for row in balancer} == {"shop-nlb-0123.elb.eu-lab-1.example.com"}
    assert {(row["port"], row["node_port"]) for row in balancer} == {(80, 31494), (443, 32625)}
    assert {row["target_port"] for row in rows if row["name"] == "api"} == {"http", "metrics"}


def test_endpoints_of_a_service_without_slices() -> None:
    items = _items()
    old = copy.deepcopy(next(o for o in items if o["kind"] == "Endpoints"))
    old["metadata"] |= {"name": "old-api", "uid": "2"}
    rows = _store([*items, old]).rows()["k8s_endpoint"]
    assert {row["slice"] for row in rows if row["service"] == "old-api"} == {"old-api"}
    # The service that has both is counted once.
    api = [row for row in rows if row["service"] == "api"]
    assert {row["slice"] for row in api} == {"api-" + row["slice"].rpartition("-")[2] for row in api}
    assert len({(row["ip"], row["port"]) for row in api}) == len(api)
    assert {row["pod_name"] for row in api} >= {"api-557c4df64b-7vx4l"}


def test_nodes() -> None:
    rows = _store(_items()).rows()["k8s_node"]
    ready, down = _named(rows, "node-a"), _named(rows, "node-c")
    assert (ready["ready"], ready["zone"], ready["pod_cidrs"]) == (True, "eu-lab-1a", "10.244.2.0/24")
    assert (down["ready"], down["unschedulable"]) == (False, True)
    assert ready["cpu_allocatable_cores"] > 0
    assert json.loads(ready["conditions"])[0]["type"]


def test_events_of_both_apis_say_the_same() -> None:
    old = next(o for o in _items() if o["kind"] == "Event")
    new = {
        "kind": "Event",
        "apiVersion": "events.k8s.io/v1",
        "metadata": old["metadata"],
        "regarding": old["involvedObject"],
        "note": old["message"],
        "reason": old["reason"],
        "type": old["type"],
        "deprecatedCount": old["count"],
        "deprecatedFirstTimestamp": old["firstTimestamp"],
        "deprecatedLastTimestamp": old["lastTimestamp"],
        "deprecatedSource": old["source"],
        "reportingController": old["reportingComponent"],
    }
    assert _store([old]).rows()["k8s_event"] == _store([new]).rows()["k8s_event"]
    assert len(_store([old, new]).rows()["k8s_event"]) == 1


def test_secret_is_refused() -> None:
    store = _store(
        [{"kind": "Secret", "metadata": {"name": "a"}, "data": {"x": "eA=="}}, {"kind": "ConfigMap", "metadata": {}}]
    )
    assert not any(store.rows().values())


def _pod(version: str, ip: str | None = "10.0.0.1", uid: str = "u1", name: str = "web-0") -> Json:
    pod = copy.deepcopy(next(o for o in _items() if o["metadata"]["name"] == "postgres-0"))
    pod["metadata"] |= {"resourceVersion": version, "uid": uid, "name": name}
    pod["status"]["podIP"], pod["status"]["podIPs"] = ip, [{"ip": ip}] if ip else []
    return pod


def test_same_version_seen_twice_is_one_row() -> None:
    store = _store([_pod("1"), _pod("1")])
    assert len(store.rows()["k8s_object"]) == 1
    assert store.changed_count == 0


def test_address_used_by_two_pods_in_turn() -> None:
    store = Store()
    store.add(_pod("1"), "start", 10 * SECOND)
    store.add(_pod("2"), "watch", 20 * SECOND, deleted=True)
    store.add(_pod("3", uid="u2"), "watch", 30 * SECOND)
    rows = store.rows()
    first, second = sorted(rows["k8s_pod"], key=lambda r: str(r["uid"]))
    assert (first["ip"], first["valid_to_ns"], first["deleted_ns"]) == ("10.0.0.1", 20 * SECOND, 20 * SECOND)
    assert (second["ip"], second["valid_to_ns"]) == ("10.0.0.1", None)
    assert [(o["taken"], o["deleted"]) for o in rows["k8s_object"]] == [
        ("start", False),
        ("watch", True),
        ("watch", False),
    ]


def test_pod_that_gets_another_address() -> None:
    store = Store()
    store.add(_pod("1", ip=None), "start", 5 * SECOND)
    store.add(_pod("2"), "watch", 10 * SECOND)
    store.add(_pod("3", ip="10.0.0.2"), "watch", 20 * SECOND)
    rows = sorted(store.rows()["k8s_pod"], key=lambda r: str(r["ip"]))
    started = time_ns(_pod("1")["status"]["startTime"])
    assert [(r["ip"], r["valid_from_ns"], r["valid_to_ns"]) for r in rows] == [
        ("10.0.0.1", started, 20 * SECOND),
        ("10.0.0.2", 20 * SECOND, None),
    ]
    assert {r["owner_name"] for r in rows} == {"postgres"}


def test_object_missing_at_the_end() -> None:
    store = _store([_pod("1")])
    (key,) = store.keys("Pod")
    store.delete(key, 9 * SECOND)
    store.delete(key, 10 * SECOND)
    rows = store.rows()
    assert [(o["taken"], o["deleted"]) for o in rows["k8s_object"]] == [("start", False), ("end", True)]
    assert rows["k8s_pod"][0]["deleted_ns"] == 9 * SECOND


@pytest.mark.corpus
def test_watch_of_a_real_rollout(shared_k8s: Path) -> None:
    store = Store()
    deleted = set()
    for line in (shared_k8s / "watch" / "api_v1_pods.watch.jsonl").read_text().splitlines():
        event = json.loads(line)
        if event["type"] == "BOOKMARK":
            continue
        store.add(event["object"], "watch", SECOND, event["type"] == "DELETED")
        if event["type"] == "DELETED":
            deleted.add(event["object"]["metadata"]["uid"])
    rows = store.rows()
    assert {
        r["uid"] for r in rows["k8s_pod"] if r["valid_to_ns"] == SECOND or r["phase"] in ("Succeeded", "Failed")
    } >= deleted
    assert {r["uid"] for r in rows["k8s_pod"] if r["deleted_ns"]} >= deleted
    assert len(deleted) == 4
    assert all('"managedFields"' not in o["object"] for o in rows["k8s_object"])
