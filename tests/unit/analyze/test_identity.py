"""Who stands at both ends of a connection, and how that is known."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from kubetape.analyze.analysis import Analysis
from kubetape.bundle import ClockAnchor, Manifest, Node
from kubetape.bundle.writer import BundleWriter

NODE = "node-a"
S = 1_000_000_000
OFFSET = 1_700_000_000 * S


def pod(name: str, ip: str, namespace: str = "shop", **more: Any) -> dict[str, Any]:
    row = {"namespace": namespace, "name": f"{name}-1", "uid": f"uid-{name}", "node": NODE, "phase": "Running"}
    row |= {"reason": "Running", "ip": ip.split()[0], "ips": ip, "labels": "{}", "owner_name": name}
    return row | {"host_network": False} | more


def connection(number: int, local: str, remote: str, side: str = "client", **more: Any) -> dict[str, Any]:
    (local_ip, local_port), (remote_ip, remote_port) = (end.rsplit(":", 1) for end in (local, remote))
    row: dict[str, Any] = {
        "node": NODE,
        "connection_id": number,
        "transport": "tcp",
        "side": side,
        "side_basis": "state",
    }
    row |= {
        "local_ip": local_ip,
        "local_port": int(local_port),
        "remote_ip": remote_ip,
        "remote_port": int(remote_port),
    }
    return row | {"existed_before": False, "start_ns": S} | more


def moved(number: int, sent: int, received: int) -> list[dict[str, Any]]:
    rows: list[dict[str, Any]] = []
    for direction, position in (("send", sent), ("receive", received)):
        row = {"node": NODE, "ts_ns": S, "connection_id": number, "direction": direction, "position": position}
        rows.append(row | {"size_bytes": 1, "payload": b"x", "source": "socket", "call": "write"})
    return rows


def service(name: str, ip: str, port: int, **more: Any) -> dict[str, Any]:
    row = {"namespace": "shop", "name": name, "uid": f"svc-{name}", "type": "ClusterIP", "cluster_ips": ip}
    return row | {"headless": False, "protocol": "TCP", "port": port} | more


def machine(**more: Any) -> dict[str, Any]:
    node: dict[str, Any] = {"name": NODE, "uid": "n", "ips": "192.168.0.5", "ready": True, "unschedulable": False}
    node |= dict.fromkeys(("memory_pressure", "disk_pressure", "pid_pressure", "network_unavailable"), False)
    node |= dict.fromkeys(("cpu_cores", "memory_bytes", "cpu_allocatable_cores", "memory_allocatable_bytes"), 1)
    node |= {"conditions": "[]", "pod_capacity": 110}
    return node | more


def identity(path: Path, number: int = 1, **tables: list[dict[str, Any]]) -> dict[str, Any]:
    node = Node(NODE, clock=[ClockAnchor(0, OFFSET)], start_ns=0, end_ns=10 * S)
    with BundleWriter(path / "x.ktape", Manifest(nodes=[node])) as writer:
        for name, rows in tables.items():
            writer.write_rows(name, rows)
    found = Analysis(path / "x.ktape").query(f"SELECT * FROM connection_identity WHERE connection_id = {number}")
    (row,) = found.to_pylist()
    return dict(row)


CLIENT, WEB = pod("client", "10.0.0.1", "front"), pod("web", "10.0.1.1 fd00::11")


@pytest.mark.parametrize("address", ["10.0.1.1", "fd00::11"])
def test_a_pods_addresses_of_both_families(tmp_path: Path, address: str) -> None:
    row = identity(tmp_path, connection=[connection(1, "10.0.0.1:4000", f"{address}:80")], k8s_pod=[CLIENT, WEB])
    assert (row["local_name"], row["remote_name"], row["remote_basis"]) == ("front/client", "shop/web", "address")


def test_a_virtual_address_is_its_service(tmp_path: Path) -> None:
    row = identity(
        tmp_path,
        connection=[connection(1, "10.0.0.1:4000", "10.43.0.9:80")],
        k8s_pod=[CLIENT],
        k8s_service=[service("web", "10.43.0.9", 80)],
    )
    assert (row["remote_name"], row["remote_service"], row["remote_basis"]) == ("shop/web", "web", "service")


def test_the_same_bytes_at_both_ends_show_the_backend_and_the_client_through_nat(tmp_path: Path) -> None:
    wrap = 1 << 32
    tables: dict[str, Any] = {
        "connection": [
            connection(1, "10.0.0.1:4000", "10.43.0.9:80"),
            connection(2, "10.0.1.1:8080", "192.168.0.5:61000", "server"),
        ],
        "socket_data": [*moved(1, wrap + 77, 2 * wrap + 99), *moved(2, 5 * wrap + 99, wrap + 77)],
        "k8s_pod": [CLIENT, WEB],
        "k8s_service": [service("web", "10.43.0.9", 80)],
    }
    row = identity(tmp_path, **tables)
    assert (row["remote_pod"], row["remote_service"], row["remote_basis"]) == ("web-1", "web", "position")
    row = identity(tmp_path, 2, **tables)
    assert (row["remote_pod"], row["remote_name"], row["remote_basis"]) == ("client-1", "front/client", "position")


def test_connection_tracking_shows_the_backend(tmp_path: Path) -> None:
    tracked = {"node": NODE, "ts_ns": S, "netns_id": 1, "transport": "tcp"}
    tracked |= {"original_source_ip": "10.0.0.1", "original_source_port": 4000}
    tracked |= {"original_destination_ip": "10.43.0.9", "original_destination_port": 80}
    tracked |= {"reply_source_ip": "10.0.1.1", "reply_source_port": 8080}
    tracked |= {"reply_destination_ip": "10.0.0.1", "reply_destination_port": 4000}
    row = identity(
        tmp_path,
        connection=[connection(1, "10.0.0.1:4000", "10.43.0.9:80")],
        conntrack=[tracked],
        k8s_pod=[CLIENT, WEB],
        k8s_service=[service("web", "10.43.0.9", 80)],
    )
    assert (row["remote_pod"], row["remote_service"], row["remote_basis"]) == ("web-1", "web", "conntrack")


def test_a_node_port_is_its_service(tmp_path: Path) -> None:
    row = identity(
        tmp_path,
        connection=[connection(1, "10.0.0.1:4000", "192.168.0.5:30080")],
        k8s_pod=[CLIENT],
        k8s_node=[machine()],
        k8s_service=[service("web", "10.43.0.9", 80, node_port=30080)],
    )
    assert (row["remote_name"], row["remote_basis"]) == ("shop/web", "service")


def test_an_address_used_by_two_pods_in_turn(tmp_path: Path) -> None:
    first = pod("old", "10.0.1.1", valid_from_ns=OFFSET, valid_to_ns=OFFSET + 3 * S)
    second = pod("new", "10.0.1.1", valid_from_ns=OFFSET + 3 * S)
    for start_s, name in ((1, "shop/old"), (5, "shop/new")):
        asked = [connection(1, "10.0.0.1:4000", "10.0.1.1:80", start_ns=start_s * S)]
        assert identity(tmp_path, connection=asked, k8s_pod=[CLIENT, first, second])["remote_name"] == name


def test_outside_peers_have_the_name_that_dns_gave(tmp_path: Path) -> None:
    question = b"\x00\x07\x01\x00\x00\x01\x00\x00\x00\x00\x00\x00\x03api\x07partner\x03com\x00\x00\x01\x00\x01"
    answer = b"\x00\x07\x81\x80\x00\x01\x00\x01\x00\x00\x00\x00" + question[12:]
    answer += b"\xc0\x0c\x00\x01\x00\x01\x00\x00\x00\x3c\x00\x04\xc6\x33\x64\x07"
    asked = connection(2, "10.0.0.1:5000", "10.96.0.10:53", transport="udp")
    said: list[dict[str, Any]] = []
    for at, direction, payload in ((1, "send", question), (2, "receive", answer)):
        row = {"node": NODE, "ts_ns": at * 1000, "connection_id": 2, "direction": direction, "position": 0}
        said.append(row | {"size_bytes": len(payload), "payload": payload, "source": "socket", "call": "sendto"})
    row = identity(
        tmp_path,
        connection=[connection(1, "10.0.0.1:4000", "198.51.100.7:443"), asked],
        socket_data=said,
        k8s_pod=[CLIENT],
    )
    assert (row["remote_name"], row["remote_basis"]) == ("api.partner.com", "dns")


def container(pod_name: str, name: str, **more: Any) -> dict[str, Any]:
    row = {"namespace": "shop", "pod_name": f"{pod_name}-1", "pod_uid": f"uid-{pod_name}", "name": name, "kind": "app"}
    return row | {"ready": True, "restart_count": 0} | more


@pytest.mark.parametrize(
    ("containers", "expected"),
    [
        ([container("web", "nginx"), container("web", "setup", kind="init")], "nginx"),
        ([container("web", "nginx", ports="80/TCP"), container("web", "log", ports="80/UDP 81/TCP")], "nginx"),
        ([container("web", "nginx"), container("web", "log")], None),
    ],
)
def test_which_container_of_a_pod_known_by_its_address_serves(
    tmp_path: Path, containers: list[dict[str, Any]], expected: str | None
) -> None:
    tables: dict[str, Any] = {"k8s_pod": [CLIENT, WEB], "k8s_container": containers}
    row = identity(tmp_path, connection=[connection(1, "10.0.0.1:4000", "10.0.1.1:80")], **tables)
    assert (row["remote_pod"], row["remote_container"]) == ("web-1", expected)


def test_both_ends_containers_are_those_of_their_own_sockets(tmp_path: Path) -> None:
    one, two = "1" * 64, "2" * 64
    group = {"node": NODE, "path": "/x", "hierarchy": "v2"}
    tables: dict[str, Any] = {
        "connection": [
            connection(1, "10.0.0.1:4000", "10.0.1.1:80", cgroup_id=11),
            connection(2, "10.0.1.1:80", "10.0.0.1:4000", "server", cgroup_id=12),
        ],
        "cgroup": [group | {"cgroup_id": 11, "container_id": one}, group | {"cgroup_id": 12, "container_id": two}],
        "k8s_container": [
            container("client", "app", container_id=one),
            container("web", "nginx", container_id=two),
            container("web", "log", ports="80/TCP"),
        ],
        "k8s_pod": [CLIENT, WEB],
    }
    for number, ends in ((1, ("app", "nginx")), (2, ("nginx", "app"))):
        row = identity(tmp_path, number, **tables)
        assert (row["local_container"], row["remote_container"]) == ends


def test_a_static_pods_manifest_hash_names_its_mirror(tmp_path: Path) -> None:
    """On the host network no address would tell, and its container may be newer than its status."""
    mirror = {"metadata": {"annotations": {"kubernetes.io/config.hash": "c" * 32}}}
    seen = {"kind": "Pod", "api_version": "v1", "namespace": "kube-system", "name": "etcd-1", "uid": "uid-etcd"}
    row = identity(
        tmp_path,
        connection=[connection(1, "192.168.0.5:4000", "10.0.1.1:80", cgroup_id=11)],
        cgroup=[{"node": NODE, "cgroup_id": 11, "path": "/x", "hierarchy": "v2", "pod_uid": "c" * 32}],
        k8s_object=[seen | {"taken": "start", "observed_ns": S, "deleted": False, "object": json.dumps(mirror)}],
        k8s_pod=[pod("etcd", "192.168.0.5", "kube-system", host_network=True), WEB],
    )
    assert (row["local_pod"], row["local_name"], row["local_basis"]) == ("etcd-1", "kube-system/etcd", "cgroup")


@pytest.mark.parametrize(
    ("address", "provider", "name"),
    [
        ("169.254.169.254", "gce", "instance metadata"),
        ("169.254.169.254", None, "instance metadata"),
        ("169.254.170.23", "aws", "EKS pod identity"),
        ("fd00:ec2::253", "aws", "VPC resolver"),
        ("168.63.129.16", "azure", "Azure platform"),
        # Elsewhere they are anybody's.
        ("169.254.170.23", "gce", None),
        ("168.63.129.16", None, None),
    ],
)
def test_the_nodes_clouds_own_addresses(tmp_path: Path, address: str, provider: str | None, name: str | None) -> None:
    row = identity(
        tmp_path,
        connection=[connection(1, "10.0.0.1:4000", f"{address}:80")],
        k8s_pod=[CLIENT],
        k8s_node=[machine(provider=provider)],
    )
    assert (row["remote_name"], row["remote_basis"]) == ((name, "known") if name else (address, "none"))
