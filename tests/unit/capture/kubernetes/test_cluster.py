"""Cluster recordings against a stand-in: the whole way, and a failure at every step of it."""

from __future__ import annotations

import json
import signal
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from kubernetes import client

from kubetape.capture.kubernetes import agent, cluster, manifests
from kubetape.capture.kubernetes import api as kubernetes_api
from kubetape.capture.kubernetes.api import Api, ApiError
from kubetape.capture.kubernetes.cluster import ClusterOptions, ClusterRecording, clean
from kubetape.errors import CaptureError
from tests.unit.capture.kubernetes.cluster_standin import Cluster, running
from tests.unit.capture.kubernetes.standin import until

Merged = list[tuple[list[bytes], str]]


@pytest.fixture(autouse=True)
def merged(monkeypatch: pytest.MonkeyPatch) -> Merged:
    """Fast retries, and what was given to the merge instead of the merge itself."""
    calls: Merged = []

    def merge(paths: list[str], output: str) -> None:
        calls.append(([Path(p).read_bytes() for p in paths], output))

    monkeypatch.setattr(cluster, "RETRY_WAIT_S", 0.001)
    monkeypatch.setattr(cluster, "POLL_S", 0.01)
    monkeypatch.setattr(kubernetes_api, "RETRY_WAIT_MAX_S", 0.001)
    monkeypatch.setattr(cluster, "_merge_function", lambda: merge)
    return calls


@pytest.fixture
def standin() -> Cluster:
    return Cluster({"node-a": True, "node-b": True, "node-c": True})


@pytest.fixture
def url(standin: Cluster) -> Iterator[str]:
    with running(standin) as address:
        yield address


def _api(url: str) -> Api:
    settings = client.Configuration()
    settings.host = url
    return Api(client.ApiClient(settings))


def _recording(url: str, tmp_path: Path, **options: Any) -> ClusterRecording:
    values = {"duration_s": 0.02, "start_timeout_s": 5.0, "snapshot": False, **options}
    return ClusterRecording(_api(url), ClusterOptions(str(tmp_path / "out.ktape"), **values))


def _left(standin: Cluster) -> tuple[list[str], list[str]]:
    return list(standin.pods), list(standin.namespaces)


def test_all_nodes_recorded_merged_and_nothing_left(standin: Cluster, url: str, tmp_path: Path, merged: Merged) -> None:
    notes = _recording(url, tmp_path, record_arguments=("--port", "80")).run()
    assert notes == []
    ((parts, output),) = merged
    assert sorted(parts) == [standin.bundle(n) for n in ("node-a", "node-b", "node-c")]
    assert output == str(tmp_path / "out.ktape")
    assert _left(standin) == ([], [])
    assert sorted(standin.stopped) == ["node-a", "node-b", "node-c"]
    assert list(tmp_path.iterdir()) == []
    command = standin.created[0]["spec"]["containers"][0]["command"]
    assert command[-3:] == ["--no-kubernetes", "--port", "80"]


def test_nobody_is_stopped_before_the_last_node_records(standin: Cluster, url: str, tmp_path: Path) -> None:
    seen: list[set[str]] = []
    standin.on["stop"] = lambda: seen.append(set(standin.states))
    _recording(url, tmp_path).run()
    assert seen[0] == {"node-a", "node-b", "node-c"}


def test_chosen_nodes_only(standin: Cluster, url: str, tmp_path: Path) -> None:
    standin.nodes["node-d"] = False
    notes = _recording(url, tmp_path, nodes=("node-b", "node-d")).run()
    assert [pod["spec"]["nodeName"] for pod in standin.created] == ["node-b"]
    assert notes == ["node node-d was not recorded: it is not ready"]
    with pytest.raises(CaptureError, match="no node node-x; there are node-a"):
        _recording(url, tmp_path, nodes=("node-x",)).run()


def test_namespace_that_was_there_stays(standin: Cluster, url: str, tmp_path: Path) -> None:
    standin.namespaces["kubetape"] = {"metadata": {"name": "kubetape"}}
    standin.faults["namespace"] = ["ok", 403]
    _recording(url, tmp_path).run()
    _recording(url, tmp_path).run()  # without permission to make one
    assert _left(standin) == ([], ["kubetape"])


PASSING = [
    ("nodes", [503, "drop"]),
    ("namespace", [503, "lost"]),
    ("create", ["lost", 500, "drop"]),
    ("list", [503, "drop", 500]),
    ("log", [500, "drop", 404, "drop"]),
    ("stop", ["drop", 500, "fail"]),
    ("fetch", ["cut", "cut", "drop"]),
    ("fetch", ["damage", 500]),
    ("delete", [500, "drop", "lost", 503]),
]


@pytest.mark.parametrize(("sort", "outcomes"), PASSING)
def test_trouble_that_passes_costs_nothing(
    standin: Cluster, url: str, tmp_path: Path, merged: Merged, sort: str, outcomes: list[Any]
) -> None:
    # An answer first, so that a lost connection is not taken for "no API at all".
    standin.faults[sort] = ["ok", *outcomes] if sort == "list" else outcomes
    notes = _recording(url, tmp_path).run()
    assert notes == []
    assert sorted(merged[0][0]) == [standin.bundle(n) for n in ("node-a", "node-b", "node-c")]
    assert _left(standin) == ([], [])


LASTING = [
    ("nodes", 403, "the nodes could not be listed"),
    ("namespace", 403, "namespace kubetape could not be made"),
    ("create", 403, "its pod could not be created: fault 403"),
    ("create", "drop", "its pod could not be created"),
    ("log", 403, "it was still created after 0 s"),
    ("stop", "fail", "it could not be stopped: touch: no space left"),
    ("stop", 403, "it could not be stopped"),
    ("fetch", 500, "its bundle could not be fetched"),
    ("fetch", "damage", "what arrived is not what was sent"),
]


@pytest.mark.parametrize(("sort", "outcome", "message"), LASTING)
def test_trouble_that_lasts_ends_with_a_reason_and_nothing_left(
    standin: Cluster, url: str, tmp_path: Path, merged: Merged, sort: str, outcome: Any, message: str
) -> None:
    standin.faults[sort] = [outcome] * 1000
    with pytest.raises(CaptureError, match=message):
        _recording(url, tmp_path, start_timeout_s=0.1).run()
    assert merged == []
    assert _left(standin) == ([], [])
    assert list(tmp_path.iterdir()) == []


def test_no_api_at_all(tmp_path: Path) -> None:
    with pytest.raises(CaptureError, match="no Kubernetes API"):
        _recording("http://127.0.0.1:9", tmp_path).run()


def _stuck(standin: Cluster) -> None:
    standin.stuck.add("node-b")


def _failed(standin: Cluster) -> None:
    standin.failing["node-b"] = "kubetape: the kernel has no BTF"


def _no_image(standin: Cluster) -> None:
    standin.waiting["node-b"] = "ImagePullBackOff"


@pytest.mark.parametrize(
    ("make", "reason"),
    [
        (_stuck, "it was still starting after 1 s"),
        (_failed, "the kernel has no BTF"),
        (_no_image, "ImagePullBackOff: kubetape:"),
    ],
)
def test_one_node_that_fails_is_a_note(
    standin: Cluster, url: str, tmp_path: Path, merged: Merged, make: Callable[[Cluster], None], reason: str
) -> None:
    make(standin)
    notes = _recording(url, tmp_path, start_timeout_s=0.6).run()
    assert len(notes) == 1
    assert notes[0].startswith("node node-b was not recorded: ")
    assert reason in notes[0]
    assert sorted(merged[0][0]) == [standin.bundle(n) for n in ("node-a", "node-c")]
    assert _left(standin) == ([], [])


def test_pod_removed_by_somebody(standin: Cluster, url: str, tmp_path: Path, merged: Merged) -> None:
    def take_away() -> None:
        for name in [n for n in standin.pods if standin.node_of(n) == "node-a"]:
            del standin.pods[name]

    standin.on["log"] = take_away
    notes = _recording(url, tmp_path).run()
    assert "node node-a was not recorded: its pod was removed by somebody" in notes
    assert len(merged[0][0]) == 2


@pytest.mark.parametrize("sort", ["create", "log", "stop", "fetch"])
def test_interrupt_at_any_step_leaves_nothing(
    standin: Cluster, url: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, sort: str
) -> None:
    def interrupt(*args: Any, **values: Any) -> None:
        raise KeyboardInterrupt

    # In a job started with `&` SIGINT is ignored: what counts is that the handler is again the one there was.
    before = signal.getsignal(signal.SIGINT)
    step = {"create": "_create_pod", "log": "_look", "stop": "_stop", "fetch": "_fetch"}[sort]
    monkeypatch.setattr(ClusterRecording, step, interrupt)
    with pytest.raises(KeyboardInterrupt):
        _recording(url, tmp_path).run()
    assert _left(standin) == ([], [])
    assert list(tmp_path.iterdir()) == []
    assert signal.getsignal(signal.SIGINT) is before


def test_interrupt_while_recording_still_makes_the_bundle(
    standin: Cluster, url: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, merged: Merged
) -> None:
    recording = _recording(url, tmp_path, duration_s=100.0)

    def wait(seconds: float) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr(recording._interrupted, "wait", wait)
    assert recording.run() == ["the recording was ended early"]
    assert len(merged[0][0]) == 3
    assert _left(standin) == ([], [])


def test_what_cannot_be_removed_is_said_with_what_to_do(standin: Cluster, url: str, tmp_path: Path) -> None:
    standin.faults["delete"] = [403] * 1000
    notes = _recording(url, tmp_path).run()
    assert "kubetape cluster clean --namespace kubetape" in notes[0]
    assert len(standin.pods) == 3
    standin.faults.clear()
    assert clean(_api(url), "kubetape") == 3
    assert _left(standin) == ([], [])
    assert clean(_api(url), "kubetape") == 0


def test_another_run_in_the_same_namespace_is_left_alone(standin: Cluster, url: str, tmp_path: Path) -> None:
    standin.on["stop"] = lambda: standin.pods.setdefault(
        "theirs", manifests.pod_manifest("other", "node-a", manifests.PodSettings())
    )
    assert _recording(url, tmp_path).run() == []
    # Its pod is there, and so is the namespace, although this run made it.
    assert _left(standin) == (["theirs"], ["kubetape"])
    assert clean(_api(url), "kubetape") == 1
    assert _left(standin) == ([], [])


def test_pod_of_a_recorder() -> None:
    settings = manifests.PodSettings(arguments=["--duration", "60s"], deadline_s=900, pull_secret="pull")
    pod = manifests.pod_manifest("abc", "ip-10-0-0-1.eu.compute.internal", settings)
    spec = pod["spec"]
    assert (spec["hostPID"], spec["hostNetwork"], spec["restartPolicy"]) == (True, True, "Never")
    assert spec["activeDeadlineSeconds"] == 900
    assert spec["automountServiceAccountToken"] is False
    assert spec["tolerations"] == [{"operator": "Exists"}]
    assert spec["containers"][0]["securityContext"]["privileged"] is True
    assert len(pod["metadata"]["name"]) < 63


RECORDER = """
import pathlib, signal, sys, time
output = pathlib.Path(sys.argv[sys.argv.index("-o") + 1])
if "fail" in sys.argv:
    sys.exit("kubetape: recording needs root")
stop = []
signal.signal(signal.SIGINT, lambda *a: stop.append(1))
pathlib.Path(f"{output}.spool").write_text("header")
while not stop:
    time.sleep(0.01)
output.write_bytes(b"the bundle")
"""


def _agent(folder: Path, *arguments: str) -> subprocess.Popen[str]:
    (folder / "recorder.py").write_text(RECORDER)
    code = (
        "import sys; from pathlib import Path; from kubetape.capture.kubernetes import agent; "
        "agent.POLL_S = 0.01; "
        f"sys.exit(agent.run(Path({str(folder)!r}), {list(arguments)!r}, "
        f"[sys.executable, {str(folder / 'recorder.py')!r}]))"
    )
    return subprocess.Popen([sys.executable, "-c", code], stdout=subprocess.PIPE, text=True)


def test_agent_records_until_told_and_stays_until_ended(tmp_path: Path) -> None:
    process = _agent(tmp_path)
    assert process.stdout is not None
    states = [json.loads(process.stdout.readline())["kubetape"] for _ in range(2)]
    assert states == ["starting", "recording"]
    (tmp_path / agent.STOP).touch()
    assert json.loads(process.stdout.readline())["kubetape"] == "stopping"
    done = agent.last_state(process.stdout.readline())
    assert (done["kubetape"], done["bytes"]) == ("done", 10)
    assert process.poll() is None
    process.terminate()
    assert until(lambda: process.poll() == 0)
    process.stdout.close()


def test_agent_says_why_the_recorder_failed(tmp_path: Path) -> None:
    process = _agent(tmp_path, "fail")
    output, _ = process.communicate(timeout=20)
    assert process.returncode == 1
    assert agent.last_state(output) == {
        **agent.last_state(output),
        "kubetape": "failed",
        "reason": "kubetape: recording needs root",
    }


def test_last_state_of_a_log() -> None:
    assert agent.last_state("") == {}
    assert agent.last_state('noise\n{"kubetape": "starting"}\n{"kubetape": "rec') == {"kubetape": "starting"}


READY = {"type": "Ready", "status": "True"}
NODES: list[tuple[dict[str, Any], dict[str, Any], str]] = [
    ({}, {"conditions": [READY]}, ""),
    ({"kubernetes.io/arch": "arm64"}, {"conditions": [READY], "nodeInfo": {"operatingSystem": "linux"}}, ""),
    ({}, {"conditions": [READY], "nodeInfo": {"operatingSystem": "windows"}}, "its operating system is windows"),
    ({"kubernetes.io/os": "windows"}, {"conditions": [READY]}, "its operating system is windows"),
    ({"type": "virtual-kubelet"}, {"conditions": [READY]}, "it is a virtual node without a kernel of its own"),
    ({"eks.amazonaws.com/compute-type": "fargate"}, {"conditions": [READY]}, "it is a virtual node"),
    ({"eks.amazonaws.com/compute-type": "ec2"}, {"conditions": [READY]}, ""),
    ({}, {"conditions": [{"type": "Ready", "status": "Unknown", "message": "Kubelet stopped posting node status."}]},
        "it is not ready (Kubelet stopped posting node status.)"),
    ({}, {}, "it is not ready"),
]  # fmt: skip


@pytest.mark.parametrize(("labels", "status", "reason"), NODES)
def test_why_a_node_is_left_out(labels: dict[str, Any], status: dict[str, Any], reason: str) -> None:
    said = cluster.why_not({"metadata": {"name": "n", "labels": labels}, "status": status})
    assert said.startswith(reason)
    assert bool(said) == bool(reason)


def test_a_pod_that_never_starts_says_what_it_waits_for(
    standin: Cluster, url: str, tmp_path: Path, merged: Merged
) -> None:
    standin.waiting["node-b"] = "ContainerCreating"
    (note,) = _recording(url, tmp_path, start_timeout_s=0.6).run()
    assert "node node-b was not recorded: it was still created after 1 s (ContainerCreating" in note
    assert len(merged[0][0]) == 2


def test_pod_security_that_keeps_recorders_out_says_what_to_do(
    standin: Cluster, url: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    send = Api.send

    def refuse(self: Api, method: str, path: str, body: Any = None, **query: Any) -> Any:
        if method == "POST" and path.endswith("/pods"):
            raise ApiError(403, 'pods "x" is forbidden: violates PodSecurity "baseline:latest": host namespaces')
        return send(self, method, path, body, **query)

    monkeypatch.setattr(Api, "send", refuse)
    with pytest.raises(CaptureError, match=r"kubectl label namespace kubetape pod-security.kubernetes.io/enforce="):
        _recording(url, tmp_path).run()
    assert _left(standin) == ([], [])
