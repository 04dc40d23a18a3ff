"""Every form a container's cgroup path takes, and the answers of three real nodes."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from kubetape.capture.kubernetes.cgroups import CgroupIdentity, parse_cgroup_path, parse_proc_cgroup

DATA = Path(__file__).parents[3] / "data" / "kubernetes"

C = "c8575b087da2c8b5d8f9e46341d48fd260464ce5a429712d4a98c009c752713d"
D = "896f37eb7c6aea213f86afc9aa47b9d67dd10594c69be35337859b2f500d61e7"
UID = "3f55ccfc-ebdd-4626-8cbb-c83d9c162f92"
SLICE_UID = UID.replace("-", "_")
OTHER = "830ca7a5-b98e-48c9-b071-d00727cba436"
HASH = "2d4f31d7191e84f73e1eac6ec0d2e086"
BURSTABLE = f"/kubepods.slice/kubepods-burstable.slice/kubepods-burstable-pod{SLICE_UID}.slice"

FORMS = [
    # cgroupfs driver: the id alone, so the runtime is not told
    (f"/kubepods/burstable/pod{UID}/{C}", C, UID, None),
    (f"/kubepods/besteffort/pod{UID}/{C}", C, UID, None),
    (f"/kubepods/pod{UID}/{C}", C, UID, None),
    (f"/kubepods/burstable/pod{HASH}/{C}", C, HASH, None),
    (f"/kubepods/burstable/pod{UID}/crio-{C}", C, UID, "cri-o"),
    (f"/kubepods/burstable/pod{UID}/crio-conmon-{C}", None, UID, "cri-o"),
    (f"/kubepods/burstable/pod{UID}/kata_{C}", C, UID, None),
    # systemd driver
    (f"{BURSTABLE}/cri-containerd-{C}.scope", C, UID, "containerd"),
    (f"{BURSTABLE}/crio-{C}.scope", C, UID, "cri-o"),
    (f"{BURSTABLE}/crio-{C}.scope/container", C, UID, "cri-o"),
    (f"{BURSTABLE}/crio-conmon-{C}.scope", None, UID, "cri-o"),
    (f"{BURSTABLE}/docker-{C}.scope", C, UID, "docker"),
    (f"{BURSTABLE}/libpod-{C}.scope", C, UID, "podman"),
    (f"{BURSTABLE}/cri-containerd-{C}.scope/system.slice/nginx.service", C, UID, "containerd"),
    (f"/kubepods.slice/kubepods-pod{SLICE_UID}.slice/cri-containerd-{C}.scope", C, UID, "containerd"),
    (
        f"/kubepods.slice/kubepods-besteffort.slice/kubepods-besteffort-pod{HASH}.slice/cri-containerd-{C}.scope",
        C,
        HASH,
        "containerd",
    ),
    # runc without the systemd driver below a systemd slice name
    (
        f"/system.slice/containerd.service/kubepods-burstable-pod{SLICE_UID}.slice:cri-containerd:{C}",
        C,
        UID,
        "containerd",
    ),
    (f"/kubepods-besteffort-pod{SLICE_UID}.slice:crio:{C}", C, UID, "cri-o"),
    (f"/system.slice:docker:{C}", C, None, "docker"),
    # a node that is itself a container, or has a cgroup root of its own
    (f"/docker/{D}/kubelet/kubepods/burstable/pod{UID}/{C}", C, UID, None),
    (
        f"/docker/{D}/kubelet.slice/kubelet-kubepods.slice/kubelet-kubepods-burstable.slice/"
        f"kubelet-kubepods-burstable-pod{SLICE_UID}.slice/cri-containerd-{C}.scope",
        C,
        UID,
        "containerd",
    ),
    (f"/system.slice/docker-{D}.scope{BURSTABLE}/cri-containerd-{C}.scope", C, UID, "containerd"),
    (f"/docker/{D}/system.slice/containerd.service", D, None, "docker"),
    (f"/node-d/kubepods/besteffort/pod{UID}/{C}", C, UID, None),
    # a cluster in a pod, Docker in a pod
    (f"/kubepods/pod{OTHER}/{D}/kubelet/kubepods/burstable/pod{UID}/{C}", C, UID, None),
    (f"/kubepods/burstable/pod{UID}/{C}/docker/{D}", C, UID, None),
    # a cgroup namespace cuts the upper levels off
    (f"/../../pod{UID}/{C}", C, UID, None),
    (f"/../cri-containerd-{C}.scope", C, None, "containerd"),
    # containers outside Kubernetes
    (f"/docker/{C}", C, None, "docker"),
    (f"/system.slice/docker-{C}.scope", C, None, "docker"),
    (f"/machine.slice/libpod-{C}.scope/container", C, None, "podman"),
    (f"/libpod_parent/libpod-{C}", C, None, "podman"),
    (f"/machine.slice/libpod-conmon-{C}.scope", None, None, "podman"),
    (f"/user.slice/user-1000.slice/user@1000.service/user.slice/libpod-{C}.scope", C, None, "podman"),
    (f"/k8s.io/{C}", C, None, "containerd"),
    (f"/system.slice/nerdctl-{C}.scope", C, None, "containerd"),
    (f"/ecs/8c03ac7b/{C}", C, None, None),
    # no container
    (BURSTABLE, None, UID, None),
    (f"/kubepods/burstable/pod{UID}", None, UID, None),
    ("/kubepods.slice/kubepods-burstable.slice", None, None, None),
    ("/kubepods/burstable", None, None, None),
    ("/system.slice/kubelet.service", None, None, None),
    ("/system.slice/crio.service", None, None, None),
    ("/system.slice/podman.service", None, None, None),
    ("/system.slice/docker.service", None, None, None),
    ("/user.slice/user-0.slice/session-c1.scope", None, None, None),
    ("/system.slice/system-getty.slice/getty@tty1.service", None, None, None),
    ("/init.scope", None, None, None),
    ("/", None, None, None),
    ("", None, None, None),
    # names that look like pods or ids and are not
    ("/system.slice/podinfo.service", None, None, None),
    (f"/system.slice/{C[:40]}", None, None, None),
    # the folder was removed under a running process
    (f"/kubepods/burstable/pod{UID}/{C} (deleted)", C, UID, None),
]


@pytest.mark.parametrize(("path", "container_id", "pod_uid", "runtime"), FORMS)
def test_form(path: str, container_id: str | None, pod_uid: str | None, runtime: str | None) -> None:
    assert parse_cgroup_path(path) == CgroupIdentity(container_id, pod_uid, runtime)


def _answers(text: str) -> list[tuple[dict[str, str], str]]:
    """(facts of the heading, path) of each line of a cgroup_lines.txt."""
    found = []
    facts: dict[str, str] = {}
    for line in text.splitlines():
        if line.startswith("## "):
            facts = dict(re.findall(r"(\w+)=(\S+)", line))
        else:
            found.append((facts, line.split(":", 2)[2]))
    return found


def test_lines_of_real_nodes() -> None:
    answers = _answers((DATA / "cgroup_lines.txt").read_text())
    assert len(answers) > 30
    for facts, path in answers:
        found = parse_cgroup_path(path)
        if "cid" in facts:
            assert (found.container_id, found.pod_uid) == (facts["cid"], facts["uid"])
        elif facts["comm"] in ("pause", "python3", "sh", "httpd", "sleep"):
            assert found.container_id
            assert found.container_id in path
            assert found.pod_uid
            assert found.runtime == "containerd"
        else:
            assert found == CgroupIdentity()


@pytest.mark.corpus
def test_every_line_of_three_nodes(shared_k8s: Path) -> None:
    for name, count in (("node-a", 220), ("node-d", 200)):
        answers = _answers((shared_k8s / name / "cgroup_lines.txt").read_text())
        assert len(answers) >= count
        for facts, path in answers:
            found = parse_cgroup_path(path)
            assert (found.container_id, found.pod_uid) == (facts["cid"], facts["uid"])


def test_hybrid_node_names_the_container_only_in_v1_lines() -> None:
    service = "/system.slice/a.service"
    text = f"9:name=systemd:{service}\n4:memory:/kubepods/pod{UID}/{C}\n0::{service}\n"
    assert parse_proc_cgroup(text) == CgroupIdentity(C, UID, None)
    assert parse_proc_cgroup(f"4:memory:/docker/{C}\n0::{BURSTABLE}/cri-containerd-{D}.scope\n").container_id == D
    assert parse_proc_cgroup("") == CgroupIdentity()
