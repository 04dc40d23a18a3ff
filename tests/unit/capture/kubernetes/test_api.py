"""The API client against a stand-in that pages, expires, refuses, stalls and cuts."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from kubernetes import client

from kubetape.capture.kubernetes import api as kubernetes_api
from kubetape.capture.kubernetes.api import Api, ApiError, PodWatch
from kubetape.capture.kubernetes.kinds import KINDS, Kind
from kubetape.capture.kubernetes.snapshot import Session, SnapshotOptions
from tests.unit.capture.kubernetes.standin import StandIn, running, status, until

DATA = Path(__file__).parents[3] / "data" / "kubernetes"
PODS = Kind("Pod", "/api/v1/pods")

Json = dict[str, Any]


@pytest.fixture(autouse=True)
def _no_long_waits(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(kubernetes_api, "RETRY_WAIT_MAX_S", 0.02)


@pytest.fixture
def server() -> StandIn:
    standin = StandIn()
    items = json.loads((DATA / "objects.json").read_text())["items"]
    for kind in KINDS:
        if not kind.optional:
            standin.lists[kind.path] = [o for o in items if o["kind"] == kind.kind]
    standin.objects["/apis/argoproj.io/v1alpha1"] = {
        "kind": "APIResourceList",
        "resources": [
            {"name": "rollouts/status", "kind": "Rollout", "namespaced": True},
            {"name": "rollouts", "kind": "Rollout", "namespaced": True},
        ],
    }
    rollout = next(o for o in items if o["kind"] == "Rollout")
    standin.objects["/apis/argoproj.io/v1alpha1/namespaces/shop/rollouts/checkout"] = rollout
    return standin


@pytest.fixture
def url(server: StandIn) -> Iterator[str]:
    with running(server) as address:
        yield address


def _api(url: str, namespace: str | None = None) -> Api:
    settings = client.Configuration()
    settings.host = url
    settings.api_key = {"authorization": "Bearer the-token"}
    return Api(client.ApiClient(settings), namespace)


def _list(api: Api, kind: Kind = PODS) -> tuple[list[str], kubernetes_api.ListResult]:
    found: list[str] = []
    result = api.list(kind, lambda obj: found.append(obj["metadata"]["name"]))
    return found, result


def test_pages_are_followed_to_the_end(server: StandIn, url: str) -> None:
    server.page_limit = 3
    found, result = _list(_api(url))
    assert sorted(found) == sorted(o["metadata"]["name"] for o in server.lists[PODS.path])
    assert (result.items, result.resource_version, result.problem) == (10, "1000", "")
    assert [query.get("continue") for _, query, _ in server.requests] == [None, "3", "6", "9"]
    assert {authorization for _, _, authorization in server.requests} == {"Bearer the-token"}


def test_items_get_the_kind_a_list_leaves_out(server: StandIn, url: str) -> None:
    seen: list[Json] = []
    _api(url).list(Kind("Deployment", "/apis/apps/v1/deployments"), seen.append)
    assert {(o["kind"], o["apiVersion"]) for o in seen} == {("Deployment", "apps/v1")}


def test_expired_page_restarts_that_list(server: StandIn, url: str) -> None:
    server.page_limit = 4
    server.faults[PODS.path] = ["ok", 410, "ok", "ok", "ok"]
    found, result = _list(_api(url))
    assert result.problem == ""
    assert result.items == 10
    assert set(found) == {o["metadata"]["name"] for o in server.lists[PODS.path]}


def test_list_that_always_expires_ends(server: StandIn, url: str) -> None:
    server.page_limit = 4
    server.faults[PODS.path] = ["ok", 410] * 10
    found, result = _list(_api(url))
    assert "expired" in result.problem
    assert len(server.requests) == 2 * kubernetes_api.LIST_RESTARTS_MAX
    assert found


@pytest.mark.parametrize("fault", [429, 500, 503, 504, "cut"])
def test_passing_trouble_is_asked_again(server: StandIn, url: str, fault: Any) -> None:
    server.faults[PODS.path] = [fault, fault]
    found, result = _list(_api(url))
    assert (len(found), result.problem) == (10, "")
    assert len(server.requests) == 3


def test_slow_answer_is_asked_again(server: StandIn, url: str) -> None:
    server.faults[PODS.path] = ["slow"]
    api = _api(url)
    api.read_timeout_s = 0.2
    found, result = _list(api)
    assert (len(found), result.problem) == (10, "")


def test_lasting_trouble_ends_after_a_few_tries(server: StandIn, url: str) -> None:
    server.faults[PODS.path] = [503] * 50
    api = _api(url)
    _list(api, Kind("Node", "/api/v1/nodes"))
    server.requests.clear()
    _, result = _list(api)
    assert result.problem.startswith("503")
    assert len(server.requests) == kubernetes_api.TRIES_MAX


def test_nobody_listens() -> None:
    with pytest.raises(ApiError, match="refused"):
        _list(_api("http://127.0.0.1:9"))


def test_own_namespace_where_the_cluster_is_forbidden(server: StandIn, url: str) -> None:
    server.faults[PODS.path] = [403]
    server.lists["/api/v1/namespaces/shop/pods"] = [
        o for o in server.lists[PODS.path] if o["metadata"]["namespace"] == "shop"
    ]
    found, result = _list(_api(url, namespace="shop"))
    assert sorted(found) == ["api-557c4df64b-7vx4l", "checkout-6d5f7c9b8-cw69q", "thumbnailer-69757c4cf8-f8xkv"]
    assert result.problem.startswith("only namespace shop")


def _session(url: str, node: str | None = None) -> Session:
    return Session(SnapshotOptions(node=node, use_api=True), _api(url))


def test_whole_snapshot(server: StandIn, url: str) -> None:
    server.page_limit = 2
    snapshot = _session(url).end(again=False)
    assert snapshot.notes == []
    assert len(snapshot.rows["k8s_pod"]) == 10
    (rollout,) = [row for row in snapshot.rows["k8s_workload"] if row["kind"] == "Rollout"]
    assert (rollout["name"], rollout["desired_count"]) == ("checkout", 1)
    assert snapshot.facts["request_count"] == len(server.requests)
    asked = " ".join(server.paths())
    assert "secrets" not in asked
    assert "configmaps" not in asked


def test_one_kind_forbidden_and_one_absent_are_notes(server: StandIn, url: str) -> None:
    server.faults["/api/v1/services"] = [403]
    del server.lists["/apis/autoscaling/v2/horizontalpodautoscalers"]
    del server.objects["/apis/argoproj.io/v1alpha1"]
    snapshot = _session(url).end(again=False)
    assert snapshot.rows["k8s_service"] == []
    assert len(snapshot.rows["k8s_pod"]) == 10
    assert [note.partition(" ")[0] for note in snapshot.notes] == ["services:", "horizontalpodautoscalers:", "Rollout"]
    assert "not permitted" in snapshot.notes[0]
    assert "does not have them" in snapshot.notes[1]
    # Known by name all the same.
    (pod,) = [row for row in snapshot.rows["k8s_pod"] if row["name"].startswith("checkout")]
    assert (pod["owner_kind"], pod["owner_name"]) == ("Rollout", "checkout")


def test_refused_token_ends_the_api_with_one_note(server: StandIn, url: str) -> None:
    for kind in KINDS:
        server.faults[kind.path] = [401]
    snapshot = _session(url).end(again=False)
    assert snapshot.notes == ["no Kubernetes API: Unauthorized"]
    assert len(server.requests) == 1


def test_what_changed_between_start_and_end(server: StandIn, url: str) -> None:
    session = _session(url)
    deployment = server.lists["/apis/apps/v1/deployments"][0]
    deployment["metadata"]["resourceVersion"] = "99999"
    deployment["spec"]["replicas"] = 7
    gone = server.lists[PODS.path].pop(0)
    snapshot = session.end()
    changed = [o for o in snapshot.rows["k8s_object"] if o["taken"] == "end"]
    assert {(o["kind"], o["name"], o["deleted"]) for o in changed} == {
        ("Deployment", deployment["metadata"]["name"], False),
        ("Pod", gone["metadata"]["name"], True),
    }
    (row,) = [r for r in snapshot.rows["k8s_workload"] if r["uid"] == deployment["metadata"]["uid"]]
    assert row["desired_count"] == 7
    assert snapshot.facts["changed_count"] == 2


def _event(kind: str, pod: Json, version: str, **metadata: Any) -> Json:
    return {"type": kind, "object": {**pod, "metadata": {**pod["metadata"], "resourceVersion": version, **metadata}}}


def test_pods_of_this_node_are_watched_through_expiry(server: StandIn, url: str) -> None:
    pods = server.lists[PODS.path]
    here = [p for p in pods if p["spec"].get("nodeName") == "node-a"]
    first, second = here[0], here[1]
    expired = {"type": "ERROR", "object": status(410, "too old resource version", "Expired")}
    bookmark = {"type": "BOOKMARK", "object": {"kind": "Pod", "metadata": {"resourceVersion": "2000"}}}
    server.watches = [
        [_event("MODIFIED", first, "1500"), bookmark],  # ends in the regular way
        [_event("ADDED", first, "2100", uid="new", name="new"), expired],
        [],
    ]
    session = _session(url, node="node-a")
    # Gone while the watch is expired: only the list made again can tell.
    server.lists[PODS.path] = [p for p in pods if p is not second]
    session.watch()
    assert until(lambda: not server.watches)
    assert until(lambda: sum("watch" in query for _, query, _ in server.requests) == 3)
    snapshot = session.end(again=False)
    watched = [(o["name"], o["deleted"]) for o in snapshot.rows["k8s_object"] if o["taken"] == "watch"]
    assert (first["metadata"]["name"], False) in watched
    assert ("new", False) in watched
    assert (second["metadata"]["name"], True) in watched
    versions = [q["resourceVersion"] for _, q, _ in server.requests if "watch" in q]
    assert versions == ["1000", "2000", "1000"]
    assert {q.get("fieldSelector") for _, q, _ in server.requests if "watch" in q} == {"spec.nodeName=node-a"}


def test_forbidden_watch_says_so(server: StandIn, url: str) -> None:
    server.faults[PODS.path] = [403]
    watch = PodWatch(_api(url), "node-a", "1", lambda pod, deleted: None, lambda uids: None)
    assert until(lambda: watch.problem)
    watch.stop()
    assert "403" in watch.problem


def test_kubeconfig_names_the_cluster(url: str, tmp_path: Path) -> None:
    path = tmp_path / "config"
    path.write_text(
        json.dumps(
            {
                "apiVersion": "v1",
                "kind": "Config",
                "current-context": "lab",
                "clusters": [{"name": "c", "cluster": {"server": url}}],
                "users": [{"name": "u", "user": {"token": "from-kubeconfig"}}],
                "contexts": [{"name": "lab", "context": {"cluster": "c", "user": "u", "namespace": "shop"}}],
            }
        )
    )
    api = kubernetes_api.connect(str(path), "lab")
    assert api.namespace == "shop"
    assert len(_list(api)[0]) == 10
