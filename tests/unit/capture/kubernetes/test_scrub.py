"""Nothing secret is kept, and what explains traffic is."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from kubetape.capture.kubernetes.scrub import MASK, scrub, scrub_command, scrub_text

DATA = Path(__file__).parents[3] / "data" / "kubernetes"
JWT = "eyJhbGciOiJSUzI1NiIsImtpZCI6IiJ9.eyJpc3MiOiJrdWJlcm5ldGVzIn0.c2lnbmF0dXJl"


@pytest.mark.parametrize(
    "command",
    [
        ["mysql", "-uroot", "-pPLANTED", "-h", "db"],
        ["app", "--password", "PLANTED", "--port", "80"],
        ["app", "--db-password=PLANTED"],
        ["app", "--api-key=PLANTED", "-v"],
        ["app", "-token", "PLANTED"],
        ["redis-server", "--requirepass", "PLANTED"],
        ["redis-cli", "-a", "PLANTED"],
        ["sh", "-c", "PGPASSWORD=PLANTED psql -h db"],
        ["sh", "-c", "export DB_PASS='PLANTED two'; run"],
        ["sh", "-c", 'mysqldump -u root -pPLANTED --all > "x"'],
        ["sh", "-c", "curl -u admin:PLANTED http://x/"],
        ["sh", "-c", "curl -H 'Authorization: Bearer PLANTED123' http://x/"],
        ["app", "postgres://user:PLANTED@db:5432/shop?sslmode=off"],
        ["app", "--url=amqp://u:PLA@NTED@mq/"],
        ["app", "--dsn", "root:PLANTED@tcp(db:3306)/shop"],
        ["app", '{"password": "PLANTED", "port": 1}'],
        ["app", "clientSecret: PLANTED"],
        ["app", "AccountKey=PLANTED;EndpointSuffix=core"],
    ],
)
def test_password_in_a_command_line(command: list[str]) -> None:
    scrubbed = json.dumps(scrub_command(command))
    assert "PLA" not in scrubbed
    assert "NTED" not in scrubbed
    assert MASK in scrubbed


@pytest.mark.parametrize(
    "command",
    [
        ["nc", "-lk", "-p", "8080"],
        ["httpd", "-f", "-p", "127.0.0.1:15001", "-h", "/var/www"],
        ["app", "--port=8080", "--tokens-per-second", "5"],
        ["mysqld", "--max-connections=10"],
        ["app", "--password=$(DB_PASSWORD)"],
        ["python3", "-c", "import time\nwhile True: time.sleep(1)"],
        ["proxy", "http://catalog.shop.svc:8080/items?page=2"],
    ],
)
def test_command_without_a_secret_is_left_alone(command: list[str]) -> None:
    assert scrub_command(command) == command


@pytest.mark.parametrize(
    "secret",
    [
        JWT,
        "AKIAIOSFODNN7EXAMPLE",
        "ghp_abcdefghijklmnopqrstuvwxyz0123456789",
        "xoxb-123456789012-abcdefghijkl",
        "-----BEGIN RSA PRIVATE KEY-----\nMIIEow\n-----END RSA PRIVATE KEY-----",
        "wJalrXUtnFEMIK7MDENGbPxRfiCYEXAMPLEKEY1",
    ],
)
def test_secret_by_its_own_form(secret: str) -> None:
    assert secret not in scrub_text(f"started with {secret} and went on")


def test_ids_and_names_are_no_secrets() -> None:
    for text in (
        "f36594983d873b2bd3c30c3f3454ff6d96b5268832ec39d80a1a245011406b58",
        "sha256:1a7e55f7e6dd7526902592f6df125220d22fb79cb2ee8b63007a331935d7f03c",
        "Back-off restarting failed container in pod cart-85b6f59b78-rmlzz_shop(edab468a-d68a-41e3-808a-14c2bd0c33dc)",
        'Failed to pull image "registry.lab.internal:5000/shop/search:9.9.9"',
    ):
        assert scrub_text(text) == text


def _pod() -> dict[str, Any]:
    items = json.loads((DATA / "objects.json").read_text())["items"]
    pod: dict[str, Any] = next(o for o in items if o["kind"] == "Pod" and o["metadata"]["name"].startswith("api-"))
    return pod


def test_every_place_of_a_pod_a_secret_can_stand_in() -> None:
    pod = _pod()
    container = pod["spec"]["containers"][0]
    container["env"] = [
        {"name": "DB_PASSWORD", "value": "PLANTED0"},
        {"name": "HARMLESS", "value": "PLANTED1"},
        {"name": "FROM", "valueFrom": {"secretKeyRef": {"name": "db", "key": "password"}}},
    ]
    container["args"] = ["--token=PLANTED2"]
    container["lifecycle"] = {"preStop": {"exec": {"command": ["x", "--password", "PLANTED3"]}}}
    container["livenessProbe"] = {
        "httpGet": {"path": "/?token=PLANTED4", "httpHeaders": [{"name": "Authorization", "value": "Basic PLANTED5"}]}
    }
    pod["metadata"]["managedFields"] = [{"manager": "PLANTED6"}]
    pod["metadata"]["annotations"] = {
        "kubectl.kubernetes.io/last-applied-configuration": "PLANTED7",
        "vault.example.com/token": "PLANTED8",
        "note": f"use {JWT} PLANTEDNOT",
        "config": "password: PLANTED9",
        "long": "PLANTED" * 1000,
        "prometheus.io/port": "8080",
    }
    pod["status"]["containerStatuses"][0]["state"] = {"waiting": {"message": "cannot reach redis://:PLANTED@r:6379/0"}}
    text = json.dumps(scrub(pod))
    assert "PLANTED" not in text.replace("PLANTEDNOT", "")
    assert JWT not in text
    kept = scrub(pod)
    assert kept["metadata"]["annotations"]["prometheus.io/port"] == "8080"
    env = kept["spec"]["containers"][0]["env"]
    assert env[0] == {"name": "DB_PASSWORD"}
    assert env[2]["valueFrom"]["secretKeyRef"] == {"name": "db", "key": "password"}
    # What explains traffic stays.
    assert kept["spec"]["containers"][0]["ports"] == pod["spec"]["containers"][0]["ports"]
    assert kept["metadata"]["labels"] == pod["metadata"]["labels"]
    assert kept["status"]["podIP"] == pod["status"]["podIP"]


def test_custom_kind_is_cut_to_what_the_tables_need() -> None:
    custom = {
        "apiVersion": "db.example.com/v1",
        "kind": "PostgresCluster",
        "metadata": {"name": "a", "namespace": "b", "uid": "c"},
        "spec": {"replicas": 3, "adminPassword": "PLANTED", "users": [{"name": "x", "pw": "PLANTED"}]},
        "status": {"readyReplicas": 2, "lastBackupKey": "PLANTED"},
    }
    kept = scrub(custom, known_kind=False)
    assert "PLANTED" not in json.dumps(kept)
    assert kept["spec"] == {"replicas": 3}
    assert kept["status"] == {"readyReplicas": 2}


@pytest.mark.corpus
def test_real_objects_lose_nothing_but_what_must_go(shared_k8s: Path) -> None:
    """Only env values, last-applied-configuration and managed fields differ on objects that hold no secret."""
    count = 0
    for name in (
        "pods",
        "services",
        "nodes",
        "deployments.apps",
        "endpointslices.discovery.k8s.io",
        "ingresses.networking.k8s.io",
    ):
        for obj in json.loads((shared_k8s / "objects" / f"{name}.json").read_text())["items"]:
            annotations = obj["metadata"].get("annotations", {})
            annotations.pop("kubectl.kubernetes.io/last-applied-configuration", None)
            for spec in (obj.get("spec") or {}, ((obj.get("spec") or {}).get("template") or {}).get("spec") or {}):
                for group in ("containers", "initContainers", "ephemeralContainers"):
                    for container in spec.get(group) or []:
                        for variable in container.get("env") or []:
                            variable.pop("value", None)
            assert scrub(obj) == obj
            count += 1
    assert count > 70
