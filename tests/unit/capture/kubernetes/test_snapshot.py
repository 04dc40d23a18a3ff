"""`kubetape snapshot` from folders and the kubelet, and that no secret reaches a bundle."""

from __future__ import annotations

import json
import zipfile
from pathlib import Path
from typing import Any

import pyarrow.parquet as pq
import pytest
from click.testing import CliRunner

from kubetape.bundle.reader import Bundle
from kubetape.capture.kubernetes.snapshot import Snapshot, SnapshotOptions, take
from kubetape.commands.snapshot import command
from kubetape.errors import ImportFileError
from tests.unit.capture.kubernetes.standin import StandIn, running

DATA = Path(__file__).parents[3] / "data" / "kubernetes"

Json = dict[str, Any]


def _items() -> list[Json]:
    items: list[Json] = json.loads((DATA / "objects.json").read_text())["items"]
    return items


def _from(folder: Path) -> Snapshot:
    return take(SnapshotOptions(from_dir=str(folder)))


def test_folder_of_kubectl_get(tmp_path: Path) -> None:
    for kind in {o["kind"] for o in _items()}:
        chosen = [o for o in _items() if o["kind"] == kind]
        (tmp_path / f"{kind.lower()}s.json").write_text(
            json.dumps({"kind": "List", "apiVersion": "v1", "items": chosen})
        )
    snapshot = _from(tmp_path)
    assert snapshot.notes == []
    assert {name: len(rows) for name, rows in snapshot.rows.items()} == {
        "k8s_object": 30,
        "k8s_pod": 10,
        "k8s_container": 15,
        "k8s_service": 7,
        "k8s_endpoint": 6,
        "k8s_node": 2,
        "k8s_workload": 10,
        "k8s_event": 4,
        "container": 0,
    }
    assert {row["taken"] for row in snapshot.rows["k8s_object"]} == {"file"}


def test_cluster_info_dump(tmp_path: Path) -> None:
    """Folders per namespace with typed lists whose items have no kind, and log files beside them."""
    (tmp_path / "shop" / "api-557c4df64b-7vx4l").mkdir(parents=True)
    (tmp_path / "shop" / "api-557c4df64b-7vx4l" / "logs.txt").write_text(
        '{"kind":"Pod","metadata":{"name":"in-a-log"}}'
    )
    pods = [{k: v for k, v in o.items() if k != "kind"} for o in _items() if o["kind"] == "Pod"]
    (tmp_path / "shop" / "pods.json").write_text(json.dumps({"kind": "PodList", "apiVersion": "v1", "items": pods}))
    (tmp_path / "nodes.json").write_text(json.dumps({"kind": "NodeList", "items": []}))
    (tmp_path / "empty.json").write_text("{}")
    snapshot = _from(tmp_path)
    assert len(snapshot.rows["k8s_pod"]) == 10
    assert snapshot.notes == ["empty.json: no Kubernetes object in it", "nodes.json: no Kubernetes object in it"]


def test_dump_printed_as_one_stream(tmp_path: Path) -> None:
    pods = {"kind": "PodList", "items": [o for o in _items() if o["kind"] == "Pod"]}
    services = {"kind": "ServiceList", "items": [o for o in _items() if o["kind"] == "Service"]}
    log = '==== START logs for container api of pod shop/api ====\n{"level":"info" broken\nplain line\n==== END ====\n'
    (tmp_path / "dump.txt").write_text(f"{json.dumps(pods, indent=4)}\n{log}{json.dumps(services, indent=4)}\n")
    snapshot = _from(tmp_path)
    assert (len(snapshot.rows["k8s_pod"]), len(snapshot.rows["k8s_service"])) == (10, 7)


@pytest.mark.parametrize("content", [None, "", "not json", '{"kind": "Secret", "metadata": {"name": "a"}}'])
def test_folder_without_objects(tmp_path: Path, content: str | None) -> None:
    if content is None:
        with pytest.raises(ImportFileError, match="no folder"):
            _from(tmp_path / "absent")
        return
    (tmp_path / "x.json").write_text(content)
    with pytest.raises(ImportFileError, match="holds no Kubernetes objects"):
        _from(tmp_path)


def _all_text(bundle: Path) -> str:
    """Every byte of a bundle that a reader could see: values of all columns, and the raw bytes."""
    parts = [bundle.read_bytes().decode("latin-1")]
    with zipfile.ZipFile(bundle) as archive:
        for name in archive.namelist():
            with archive.open(name) as member:
                if name.endswith(".parquet"):
                    parts.append(json.dumps(pq.read_table(member).to_pylist(), default=str))
                else:
                    parts.append(member.read().decode())
    return "\n".join(parts)


def test_planted_secrets_are_not_in_the_bundle(tmp_path: Path) -> None:
    items = _items()
    secret = {
        "apiVersion": "v1",
        "kind": "Secret",
        "metadata": {"name": "db", "namespace": "shop"},
        "data": {"password": "UExBTlRFRC1TRUNSRVQ="},
        "stringData": {"password": "PLANTED-SECRET"},
    }
    settings = {"apiVersion": "v1", "kind": "ConfigMap", "metadata": {"name": "c"}, "data": {"x": "PLANTED-CONFIG"}}
    for obj in items:
        annotations = obj["metadata"].setdefault("annotations", {})
        annotations["example.com/api-token"] = "PLANTED-TOKEN"
        annotations["kubectl.kubernetes.io/last-applied-configuration"] = '{"x": "PLANTED-APPLIED"}'
        obj["metadata"]["managedFields"] = [{"manager": "PLANTED-MANAGED"}]
        spec = obj.get("spec") or {}
        for pod_spec in (spec, (spec.get("template") or {}).get("spec") or {}):
            for container in pod_spec.get("containers") or []:
                container["env"] = [{"name": "DB_PASSWORD", "value": "PLANTED-ENV"}]
                container["args"] = ["--password", "PLANTED-ARG", "--url=redis://:PLANTED-URL@redis/0"]
        if obj["kind"] == "Event":
            obj["message"] = "cannot log in with password=PLANTED-MESSAGE"
    (tmp_path / "in").mkdir()
    (tmp_path / "in" / "all.json").write_text(json.dumps({"kind": "List", "items": [*items, secret, settings]}))
    output = tmp_path / "s.ktape"
    result = CliRunner().invoke(command, ["-o", str(output), "--from-dir", str(tmp_path / "in")], standalone_mode=False)
    assert result.exception is None
    text = _all_text(output)
    assert "PLANTED" not in text
    assert "UExBTlRFRC1TRUNSRVQ" not in text
    # The objects themselves are there.
    assert "api-557c4df64b-7vx4l" in text
    assert "DB_PASSWORD" in text
    assert Bundle(output).verify() == []


@pytest.mark.corpus
def test_bundle_of_a_whole_cluster(shared_k8s: Path, tmp_path: Path) -> None:
    output = tmp_path / "s.ktape"
    result = CliRunner().invoke(
        command, ["-o", str(output), "--from-dir", str(shared_k8s / "objects")], standalone_mode=False
    )
    assert result.exception is None
    bundle = Bundle(output)
    assert bundle.verify() == []
    assert bundle.row_count("k8s_pod") == 40
    assert bundle.manifest.nodes[0].source == "snapshot"
    # No literal value of an environment variable, of any of the real objects.
    text = _all_text(output)
    values = {
        variable["value"]
        for obj in json.loads((shared_k8s / "objects" / "pods.json").read_text())["items"]
        for container in obj["spec"]["containers"]
        for variable in container.get("env") or []
        if len(variable.get("value") or "") > 12 and "/" not in variable["value"]
    }
    assert not [value for value in values if value in text]


def test_kubelet_where_there_is_no_api(tmp_path: Path) -> None:
    server = StandIn()
    server.objects["/pods"] = {
        "kind": "PodList",
        "items": [{k: v for k, v in o.items() if k != "kind"} for o in _items() if o["kind"] == "Pod"],
    }
    with running(server) as url:
        options = SnapshotOptions(node="node-e", use_api=False, kubelet=url)
        snapshot = take(options)
        assert len(snapshot.rows["k8s_pod"]) == 10
        # The node's own containers, as far as its pods name them.
        here = {r["pod_name"] for r in snapshot.rows["container"]}
        assert here == {p["name"] for p in snapshot.rows["k8s_pod"] if p["node"] == "node-e" and p["name"] != "gated"}
        server.faults["/pods"] = [403]
        assert "grant get on nodes/proxy" in take(options).notes[0]
    assert (
        "kubelet http://127.0.0.1:9/pods" in take(SnapshotOptions(use_api=False, kubelet="http://127.0.0.1:9")).notes[0]
    )


def test_nothing_at_all_is_an_error_and_leaves_no_file(tmp_path: Path) -> None:
    config = tmp_path / "config"
    config.write_text("{}")
    result = CliRunner().invoke(
        command, ["-o", str(tmp_path / "s.ktape"), "--kubeconfig", str(config)], standalone_mode=False
    )
    assert "nothing to write: no Kubernetes API" in str(result.exception)
    assert not (tmp_path / "s.ktape").exists()
