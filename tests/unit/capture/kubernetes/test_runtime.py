"""Containers and pods from the files of containerd, CRI-O, podman and Docker, and from /proc alone."""

from __future__ import annotations

import json
import os
from pathlib import Path
from typing import Any

import pytest

from kubetape.capture.kubernetes.local import pods_of_containers
from kubetape.capture.kubernetes.runtime import Container, containers, rows

DATA = Path(__file__).parents[3] / "data" / "kubernetes"
API = "f36594983d873b2bd3c30c3f3454ff6d96b5268832ec39d80a1a245011406b58"
SANDBOX = "dfb96a2a3a52ddceff55156dc00a972c3c7208842a1f2cdd5d1907bd5408abb8"
UID = "830ca7a5-b98e-48c9-b071-d00727cba436"


def _write(path: Path, value: Any) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(value if isinstance(value, str) else json.dumps(value))


def _process(proc: Path, pid: int, cgroup: str, netns: int) -> None:
    _write(proc / str(pid) / "cgroup", f"0::{cgroup}\n")
    (proc / str(pid) / "ns").mkdir(exist_ok=True)
    os.symlink(f"net:[{netns}]", proc / str(pid) / "ns" / "net")


def _containerd(root: Path, container_id: str, config: dict[str, Any], pid: int) -> None:
    folder = root / "run/containerd/io.containerd.runtime.v2.task/k8s.io" / container_id
    _write(folder / "config.json", config)
    _write(folder / "init.pid", str(pid))


def test_containerd_pod_with_its_sandbox(tmp_path: Path) -> None:
    proc = tmp_path / "proc"
    config = json.loads((DATA / "containerd_config.json").read_text())
    sandbox = json.loads((DATA / "containerd_config.json").read_text())
    sandbox["annotations"]["io.kubernetes.cri.container-type"] = "sandbox"
    del sandbox["annotations"]["io.kubernetes.cri.container-name"]
    _containerd(tmp_path, API, config, 2746)
    _containerd(tmp_path, SANDBOX, sandbox, 2159)
    slice_path = f"/kubepods.slice/kubepods-burstable-pod{UID.replace('-', '_')}.slice"
    _process(proc, 2746, f"{slice_path}/cri-containerd-{API}.scope", 77)
    found = {c.container_id: c for c in containers(str(tmp_path), str(proc))}
    assert found[API] == Container(
        API,
        "api",
        UID,
        "api-557c4df64b-7vx4l",
        "shop",
        "registry.lab.internal:5000/shop/app:1.4.2",
        2746,
        f"{slice_path}/cri-containerd-{API}.scope",
        77,
        "runtime",
    )
    assert (found[SANDBOX].name, found[SANDBOX].netns_id) == ("POD", None)
    assert {row["node"] for row in rows("node-e", list(found.values()))} == {"node-e"}

    pods, declared = pods_of_containers("node-e", list(found.values()), str(proc))
    (pod,) = pods
    assert (pod["namespace"], pod["name"], pod["uid"]) == ("shop", "api-557c4df64b-7vx4l", UID)
    assert (pod["phase"], pod["version"], pod["node"]) == ("Running", "1.4.2", "node-e")
    assert [(row["name"], row["container_id"]) for row in declared] == [("api", API)]


def test_cri_o(tmp_path: Path) -> None:
    annotations = {
        "io.kubernetes.container.name": "web",
        "io.kubernetes.pod.name": "web-0",
        "io.kubernetes.pod.namespace": "shop",
        "io.kubernetes.pod.uid": UID,
        "io.kubernetes.cri-o.ContainerType": "container",
        "io.kubernetes.cri-o.ImageName": "quay.io/shop/web:2",
    }
    folder = tmp_path / "run/containers/storage/overlay-containers" / API / "userdata"
    _write(folder / "config.json", {"annotations": annotations})
    _write(folder / "pidfile", "123")
    (found,) = containers(str(tmp_path), str(tmp_path / "proc"))
    assert (found.name, found.pod_name, found.namespace, found.pod_uid) == ("web", "web-0", "shop", UID)
    assert (found.image, found.pid) == ("quay.io/shop/web:2", 123)


def test_docker_of_a_pod_and_by_itself(tmp_path: Path) -> None:
    labels = {
        "io.kubernetes.container.name": "web",
        "io.kubernetes.pod.name": "web-0",
        "io.kubernetes.pod.namespace": "shop",
        "io.kubernetes.pod.uid": UID,
        "io.kubernetes.docker.type": "container",
    }
    place = tmp_path / "var/lib/docker/containers"
    _write(place / API / "config.v2.json", {"Config": {"Labels": labels, "Image": "web:2"}, "State": {"Pid": 9}})
    _write(
        place / SANDBOX / "config.v2.json",
        {"Name": "/registry", "Config": {"Image": "registry:2"}, "State": {"Pid": 0}},
    )
    found = {c.container_id: c for c in containers(str(tmp_path), str(tmp_path / "proc"))}
    assert (found[API].pod_name, found[API].image, found[API].pid) == ("web-0", "web:2", 9)
    assert (found[SANDBOX].name, found[SANDBOX].pod_name, found[SANDBOX].pid) == ("registry", None, None)


def test_container_that_only_its_cgroup_tells(tmp_path: Path) -> None:
    _process(tmp_path / "proc", 5, f"/kubepods/burstable/pod{UID}/{API}", 3)
    _process(tmp_path / "proc", 6, f"/kubepods/burstable/pod{UID}/{API}", 3)
    _process(tmp_path / "proc", 7, "/system.slice/sshd.service", 1)
    (found,) = containers(str(tmp_path), str(tmp_path / "proc"))
    assert (found.container_id, found.pod_uid, found.pid, found.source) == (API, UID, 5, "cgroup")
    assert pods_of_containers("n", [found], str(tmp_path / "proc")) == ([], [])


def test_damaged_files_are_passed_over(tmp_path: Path) -> None:
    _write(tmp_path / "run/containerd/io.containerd.runtime.v2.task/k8s.io" / API / "config.json", "{not json")
    _write(tmp_path / "var/lib/docker/containers" / API / "config.v2.json", "[]")
    assert containers(str(tmp_path), str(tmp_path / "proc")) == []


@pytest.mark.corpus
def test_containers_of_three_real_nodes(shared_k8s: Path, tmp_path: Path) -> None:
    for node in ("node-a", "node-d", "node-e"):
        root = tmp_path / node
        inspected = json.loads((shared_k8s / node / "crictl_inspect_containers.json").read_text())
        expected = {}
        for one in inspected:
            container_id, labels = one["status"]["id"], one["status"]["labels"]
            _containerd(root, container_id, one["info"]["runtimeSpec"], one["info"]["pid"])
            expected[container_id] = (
                labels["io.kubernetes.container.name"],
                labels["io.kubernetes.pod.name"],
                labels["io.kubernetes.pod.namespace"],
                labels["io.kubernetes.pod.uid"],
                one["info"]["pid"] or None,
            )
        found = containers(str(root), str(root / "proc"))
        assert {c.container_id: (c.name, c.pod_name, c.namespace, c.pod_uid, c.pid or None) for c in found} == expected
        assert len(expected) > 10
