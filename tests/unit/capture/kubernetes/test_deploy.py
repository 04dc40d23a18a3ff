"""The manifests under deploy/ say what the code does."""

from __future__ import annotations

import os
import subprocess
from pathlib import Path
from typing import Any

import yaml

from kubetape.capture.kubernetes import manifests
from kubetape.capture.kubernetes.kinds import KINDS

DEPLOY = Path(__file__).parents[4] / "deploy"


def _documents(name: str) -> list[dict[str, Any]]:
    return list(yaml.safe_load_all((DEPLOY / name).read_text()))


def test_pod_is_the_one_the_command_creates() -> None:
    settings = manifests.PodSettings(deadline_s=900, arguments=["--duration", "60s", "--no-kubernetes"])
    assert _documents("recorder-pod.yaml") == [
        manifests.namespace_manifest("kubetape", "by-hand"),
        manifests.pod_manifest("by-hand", "NODE", settings),
    ]


def test_role_permits_every_kind_a_snapshot_takes_and_no_secret() -> None:
    documents = _documents("rbac.yaml")
    (role,) = [d for d in documents if d["kind"] == "ClusterRole"]
    permitted = {
        (group, resource)
        for rule in role["rules"]
        for group in rule["apiGroups"]
        for resource in rule["resources"]
        if "list" in rule["verbs"]
    }
    for kind in KINDS:
        group = kind.api_version.rpartition("/")[0]
        assert (group, kind.plural) in permitted
    every = {resource for d in documents for rule in d.get("rules") or [] for resource in rule["resources"]}
    assert not every & {"secrets", "configmaps", "*"}


def test_plugin_passes_its_words_on(tmp_path: Path) -> None:
    fake = tmp_path / "kubetape"
    fake.write_text('#!/bin/sh\necho "$@"\n')
    fake.chmod(0o755)
    environment = {"PATH": f"{tmp_path}:{os.environ['PATH']}"}

    def plugin(*words: str) -> str:
        command = [str(DEPLOY / "kubectl-tape"), *words]
        return subprocess.run(command, env=environment, capture_output=True, text=True, check=True).stdout.strip()

    assert plugin("-o", "a b.ktape") == "cluster record -o a b.ktape"
    assert plugin("record", "--node", "n") == "cluster record --node n"
    assert plugin("clean") == "cluster clean"
    assert plugin("snapshot", "-o", "x") == "snapshot -o x"
