"""Pods to rows: kubectl's STATUS column, restarts, owners, quantities and times."""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Any

import pytest

from kubetape.capture.kubernetes.pods import (
    container_rows,
    image_tag,
    pod_row,
    quantity,
    quantity_bytes,
    status_reason,
    time_ns,
)

DATA = Path(__file__).parents[3] / "data" / "kubernetes"


def _kubectl_table(path: Path) -> dict[tuple[str, str], tuple[str, int, str]]:
    """(namespace, name) -> (STATUS, RESTARTS, IP) of `kubectl get pods -A -o wide`."""
    found = {}
    for line in path.read_text().splitlines()[1:]:
        fields = re.split(r"\s{2,}", line)
        found[fields[0], fields[1]] = (fields[3], int(fields[4].split()[0]), fields[6])
    return found


@pytest.mark.corpus
def test_status_and_restarts_are_those_kubectl_prints(shared_k8s: Path) -> None:
    expected = _kubectl_table(shared_k8s / "raw" / "pods.txt")
    rows = [pod_row(pod) for pod in json.loads((shared_k8s / "objects" / "pods.json").read_text())["items"]]
    found = {(r["namespace"], r["name"]): (r["reason"], r["restart_count"], r["ip"] or "<none>") for r in rows}
    assert found == expected
    assert len({status for status, _, _ in found.values()}) >= 11


def _pod(status: dict[str, Any], **metadata: Any) -> dict[str, Any]:
    spec = {
        "containers": [{"name": "a"}, {"name": "b"}],
        "initContainers": [{"name": "i"}, {"name": "s", "restartPolicy": "Always"}],
    }
    return {"metadata": metadata, "spec": spec, "status": status}


def _ended(code: int = 0, **more: Any) -> dict[str, Any]:
    return {"terminated": {"exitCode": code, **more}}


DONE = {"name": "i", "state": _ended()}
READY = [{"type": "Ready", "status": "True"}]


@pytest.mark.parametrize(
    ("expected", "pod"),
    [
        ("Terminating", _pod({"phase": "Running"}, deletionTimestamp="2026-01-01T00:00:00Z")),
        ("Unknown", _pod({"phase": "Running", "reason": "NodeLost"}, deletionTimestamp="2026-01-01T00:00:00Z")),
        ("Evicted", _pod({"phase": "Failed", "reason": "Evicted"})),
        (
            "Init:Error",
            _pod({"phase": "Pending", "initContainerStatuses": [{"name": "i", "state": _ended(1, reason="Error")}]}),
        ),
        ("Init:ExitCode:3", _pod({"phase": "Pending", "initContainerStatuses": [{"name": "i", "state": _ended(3)}]})),
        (
            "Init:Signal:9",
            _pod({"phase": "Pending", "initContainerStatuses": [{"name": "i", "state": _ended(137, signal=9)}]}),
        ),
        (
            "Init:CrashLoopBackOff",
            _pod(
                {
                    "phase": "Pending",
                    "initContainerStatuses": [{"name": "i", "state": {"waiting": {"reason": "CrashLoopBackOff"}}}],
                }
            ),
        ),
        (
            "Init:1/2",
            _pod({"phase": "Pending", "initContainerStatuses": [DONE, {"name": "s", "state": {"running": {}}}]}),
        ),
        (
            "PodInitializing",
            _pod(
                {
                    "phase": "Pending",
                    "initContainerStatuses": [DONE, {"name": "s", "started": True, "state": {"running": {}}}],
                    "containerStatuses": [{"state": {"waiting": {"reason": "PodInitializing"}}}],
                }
            ),
        ),
        (
            "NotReady",
            _pod(
                {
                    "phase": "Running",
                    "containerStatuses": [
                        {"state": _ended(reason="Completed")},
                        {"ready": True, "state": {"running": {}}},
                    ],
                }
            ),
        ),
        (
            "Running",
            _pod(
                {
                    "phase": "Running",
                    "conditions": READY,
                    "containerStatuses": [
                        {"state": _ended(reason="Completed")},
                        {"ready": True, "state": {"running": {}}},
                    ],
                }
            ),
        ),
        ("Signal:15", _pod({"phase": "Failed", "containerStatuses": [{"state": _ended(143, signal=15)}]})),
        ("Unknown", {}),
    ],
)
def test_status_of_rarer_states(expected: str, pod: dict[str, Any]) -> None:
    assert status_reason(pod) == expected


@pytest.mark.parametrize(
    ("text", "value"),
    [
        ("250m", 0.25),
        ("2", 2.0),
        ("64Mi", 67108864.0),
        ("1e3", 1000.0),
        ("1E3", 1000.0),
        ("1E", 1e18),
        ("1.5Gi", 1610612736.0),
        ("100k", 1e5),
        ("12n", 1.2e-8),
        ("128974848", 128974848.0),
        ("", None),
        ("x", None),
        (None, None),
    ],
)
def test_quantity(text: str | None, value: float | None) -> None:
    assert quantity(text) == (pytest.approx(value) if value is not None else None)


def test_time_keeps_every_digit() -> None:
    assert time_ns("2026-11-23T07:46:06Z") == 1795419966 * 10**9
    assert time_ns("2026-11-23T07:46:06.815499910Z") == 1795419966_815499910
    assert time_ns("2026-11-23T08:46:06.8+01:00") == 1795419966_800000000
    assert time_ns(None) is None
    assert time_ns("yesterday") is None
    assert quantity_bytes("1Ki") == 1024


@pytest.mark.parametrize(
    ("image", "tag"),
    [
        ("registry:5000/shop/app:1.4.2", "1.4.2"),
        ("registry:5000/shop/app", None),
        ("nginx@sha256:1a7e55f7e6dd7526902592f6", "1a7e55f7e6dd"),
        ("nginx:1.27@sha256:1a7e55f7e6dd7526902592f6", "1.27"),
        (None, None),
    ],
)
def test_image_tag(image: str | None, tag: str | None) -> None:
    assert image_tag(image) == tag


def _objects(kind: str) -> dict[str, dict[str, Any]]:
    items = json.loads((DATA / "objects.json").read_text())["items"]
    return {o["metadata"]["name"]: o for o in items if o["kind"] == kind}


def test_containers_of_a_pod_with_sidecar_and_init() -> None:
    rows = {row["name"]: row for row in container_rows(_objects("Pod")["api-557c4df64b-7vx4l"])}
    assert {name: row["kind"] for name, row in rows.items()} == {
        "wait": "init",
        "log-shipper": "sidecar",
        "api": "app",
        "envoy": "app",
    }
    api = rows["api"]
    assert api["container_id"] == "f36594983d873b2bd3c30c3f3454ff6d96b5268832ec39d80a1a245011406b58"
    assert (api["runtime"], api["ports"]) == ("containerd", "8080/TCP 9090/TCP")
    assert (api["cpu_request_cores"], api["cpu_limit_cores"]) == (0.05, None)
    assert (api["memory_request_bytes"], api["memory_limit_bytes"]) == (48 << 20, 128 << 20)


def test_last_termination_of_a_container_that_was_killed() -> None:
    (row,) = container_rows(_objects("Pod")["thumbnailer-69757c4cf8-f8xkv"])
    assert (row["state"], row["reason"], row["exit_code"], row["restart_count"]) == ("terminated", "OOMKilled", 137, 4)


def test_times_of_a_deleted_pod() -> None:
    pod = _objects("Pod")["held-by-finalizer"]
    row = pod_row(pod)
    assert row["deleted_ns"] == time_ns("2026-11-23T07:54:37Z")
    pod["metadata"]["deletionGracePeriodSeconds"] = 30
    assert pod_row(pod)["deleted_ns"] == time_ns("2026-11-23T07:54:07Z")
    # It has ended, so its address is free since its container did.
    assert row["valid_to_ns"] == time_ns("2026-11-23T07:54:36Z")
    assert row["valid_from_ns"] == row["started_ns"]
