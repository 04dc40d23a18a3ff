"""What runs inside TLS is read at the libraries: the same requests with TLS and without become the same rows.

Every server answers with the path asked for and the client's port, so that each body says which connection carried it.
"""

from __future__ import annotations

import contextlib
import json
import os
import random
import shutil
import signal
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any, NamedTuple

import pytest

from kubetape.analyze.analysis import Analysis
from kubetape.bundle.reader import Bundle
from kubetape.capture import gobinary
from kubetape.capture.elf import Elf, ElfError
from tests.live.recording import record, rows
from tests.live.test_spans import free_port, wait_for

pytestmark = pytest.mark.live

HERE = Path(__file__).parent / "tls"
PROGRAMS = ("openssl", "nginx", "curl", "wget", "go")
NGINX = """
daemon off; user root; error_log stderr; pid {folder}/nginx.pid; worker_processes 2;
events {{}}
http {{
  access_log off; client_body_temp_path {folder}; proxy_temp_path {folder}; fastcgi_temp_path {folder};
  uwsgi_temp_path {folder}; scgi_temp_path {folder};
  ssl_certificate {folder}/certificate.pem; ssl_certificate_key {folder}/key.pem;
  server {{
    listen 127.0.0.1:{nginx[0]}; listen 127.0.0.1:{nginx[1]} ssl;
    listen 127.0.0.1:{nginx2[0]} http2; listen 127.0.0.1:{nginx2[1]} ssl http2;
    location / {{ return 200 "$request_uri $remote_port\\n"; }}
    location ~ long$ {{ root {folder}; try_files /long.txt =404; }}
  }}
}}
"""
SERVERS = ("nginx", "nginx2", "threads", "asyncio", "go", "forwarder")


class Case(NamedTuple):
    """server; (basis, library) of the client's sessions and of the server's."""

    server: str
    client: tuple[str, str]
    server_tie: tuple[str, str]


NESTED, MEMORY, GO = ("nested", "openssl"), ("thread", "openssl"), ("fd", "go")
CASES = {
    "curl": Case("nginx", NESTED, NESTED),
    "curl2": Case("nginx2", NESTED, NESTED),
    "wget": Case("nginx", ("nested", "gnutls"), NESTED),
    "threads": Case("threads", NESTED, NESTED),
    "asyncio": Case("asyncio", MEMORY, MEMORY),
    "goclient": Case("go", GO, GO),
    "gocurl": Case("go", NESTED, GO),
}


class Run(NamedTuple):
    bundle: Bundle
    analysis: Analysis
    ports: dict[str, tuple[int, int]]
    answered: dict[str, int]  # path -> the client's port, from the bodies
    late: int  # port of the client that started later


def commands(folder: Path, ports: dict[str, tuple[int, int]]) -> str:
    """A shell script: every client with and without TLS."""
    lines = []
    for secret, scheme, mark in ((0, "http", "p"), (1, "https", "t")):

        def url(server: str, path: str, secret: int = secret, scheme: str = scheme, mark: str = mark) -> str:
            return f"{scheme}://127.0.0.1:{ports[server][secret]}/{mark}/{path}"

        second = "--http2-prior-knowledge" if not secret else "--http2"
        client = f"{sys.executable} {HERE}/python_client.py"
        curl = "curl -sSk"
        lines += [
            f"{curl} --http1.1 {url('nginx', 'curl/one')} {url('nginx', 'curl/two')} {url('nginx', 'curl/long')}",
            f"{curl} {second} {url('nginx2', 'curl2/one')}",
            f"{curl} {second} {url('nginx2', 'curl2/long')}",
            f"wget -qO- --no-check-certificate {url('nginx', 'wget/one')} {url('nginx', 'wget/long')}",
            f"{client} threads {' '.join(url('threads', f'threads/{n}') for n in 'abcd')}",
            f"{client} asyncio {' '.join(url('asyncio', f'asyncio/{n}') for n in 'abcd')}",
            f"{folder}/program get {' '.join(url('go', f'goclient/{n}') for n in 'abcd')}",
            f"{curl} --http1.1 {url('go', 'gocurl/one')} {url('go', 'gocurl/two')}",
        ]
    late = f"/usr/bin/openssl s_client -quiet -connect 127.0.0.1:{ports['nginx'][1]}"
    request = r"GET /t/late/one HTTP/1.1\r\nHost: late\r\nConnection: close\r\n\r\n"
    lines += [f"curl -sSk https://127.0.0.1:{ports['forwarder'][0]}/t/forwarded/one", "wait", "echo done"]
    first = f"(sleep 2; printf '{request}'; sleep 1) | unshare --mount chroot {folder}/root {late} > {folder}/late &"
    return "\n".join(["set -e", first, *(f"{line} >> {folder}/answers" for line in lines)])


def make_root(folder: Path) -> None:
    """A root with copies of the program openssl and its libraries: other files than the node's."""
    program = Path("/usr/bin/openssl")
    listed = subprocess.run(["ldd", str(program)], check=True, capture_output=True, text=True).stdout
    files = [program, *(Path(word) for word in listed.split() if word.startswith("/"))]
    for file in files:
        copy = folder / "root" / str(file).lstrip("/")
        copy.parent.mkdir(parents=True, exist_ok=True)
        shutil.copy(file.resolve(), copy)


def make_certificate(folder: Path) -> None:
    options = ["-x509", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:prime256v1", "-nodes", "-subj", "/CN=localhost"]
    files = ["-keyout", f"{folder}/key.pem", "-out", f"{folder}/certificate.pem"]
    subprocess.run(["openssl", "req", *options, *files], check=True, capture_output=True)


def build_go(folder: Path, *options: str, name: str = "program") -> Path:
    """The Go program; by default stripped: no symbols but Go's own table."""
    environment = {**os.environ, "GOCACHE": str(folder.parent / "gocache"), "GO111MODULE": "off", "GOFLAGS": ""}
    how = options or ("-ldflags", "-s -w")
    subprocess.run(
        ["go", "build", *how, "-o", str(folder / name), str(HERE / "main.go")], check=True, env=environment, timeout=240
    )
    return folder / name


@contextlib.contextmanager
def servers(folder: Path, ports: dict[str, tuple[int, int]]) -> Iterator[None]:
    configuration = folder / "nginx.conf"
    configuration.write_text(NGINX.format(folder=folder, **ports))
    (folder / "long.txt").write_text("several records\n" * 3000)
    pair = [f"{folder}/certificate.pem", f"{folder}/key.pem"]
    started = [
        subprocess.Popen(command)
        for command in (
            ["nginx", "-c", str(configuration)],
            [sys.executable, str(HERE / "servers.py"), *pair, *map(str, ports["threads"] + ports["asyncio"])],
            [str(folder / "program"), "serve", *map(str, ports["go"]), *pair],
            [sys.executable, str(HERE / "forwarder.py"), str(ports["forwarder"][0]), str(ports["nginx"][1])],
        )
    ]
    try:
        for name, both in ports.items():
            for port in both[: 1 if name == "forwarder" else 2]:
                wait_for(port)
        yield
    finally:
        for process in started:
            process.send_signal(signal.SIGTERM)
        for process in started:
            process.wait(20)


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> Run:
    missing = [program for program in PROGRAMS if not shutil.which(program)]
    assert not missing, f"not installed: {missing} (tools/setup.sh test)"
    folder = tmp_path_factory.mktemp("tls")
    folder.chmod(0o755)
    make_certificate(folder)
    build_go(folder)
    make_root(folder)
    ports = {name: (free_port(), free_port()) for name in SERVERS}
    with servers(folder, ports):
        record(folder / "x.ktape", "--", "sh", "-c", commands(folder, ports), timeout=120)
        urls = [f"https://127.0.0.1:{ports[name][1]}/t/some" for name in ("nginx", "threads", "asyncio", "go")]
        record(folder / "port.ktape", "--port", str(ports["asyncio"][1]), "--", "curl", "-sSk", "--fail", *urls)
    answered = {}
    lines = (folder / "answers").read_text().splitlines()
    assert lines[-1] == "done"
    for line in lines:
        if line.startswith("/"):
            path, port = line.split()
            answered[path] = int(port)
    late = int((folder / "late").read_text().split()[-1])
    return Run(Bundle(folder / "x.ktape"), Analysis(folder / "x.ktape"), ports, answered, late)


def requests(run: Run, prefix: str) -> list[dict[str, Any]]:
    query = f"SELECT * FROM request WHERE protocol IN ('http1', 'http2') AND statement LIKE '{prefix}%'"
    return list(run.analysis.query(query).to_pylist())


def shape(row: dict[str, Any]) -> tuple[Any, ...]:
    """What is the same with TLS and without."""
    names = ("side", "protocol", "operation", "status", "outcome", "request_bytes", "response_bytes")
    return (row["statement"][3:], *(row[name] for name in names))


@pytest.mark.parametrize("case", CASES)
def test_requests_inside_tls_equal_those_without(run: Run, case: str) -> None:
    plain, secret = requests(run, f"/p/{case}/"), requests(run, f"/t/{case}/")
    assert sorted(map(shape, secret)) == sorted(map(shape, plain))
    answered = [path for path in run.answered if path.startswith(f"/t/{case}/")]
    assert answered
    for side in ("client", "server"):
        assert {row["statement"] for row in secret if row["side"] == side} >= set(answered)


@pytest.mark.parametrize("case", CASES)
def test_requests_inside_tls_belong_to_their_connections(run: Run, case: str) -> None:
    port = run.ports[CASES[case].server][1]
    for row in requests(run, f"/t/{case}/"):
        assert row["server_port"] == port
        if row["statement"] in run.answered:
            assert row["client_port"] == run.answered[row["statement"]]
        facts = json.loads(row["attributes"])["tls"]
        assert facts["version"].startswith("TLS 1.")
        assert facts.get("alpn") == ("h2" if row["protocol"] == "http2" else facts.get("alpn"))


@pytest.mark.parametrize("case", CASES)
def test_sessions_say_how_they_were_tied(run: Run, case: str) -> None:
    expected = CASES[case]
    port = run.ports[expected.server][1]
    ports = {run.answered[path] for path in run.answered if path.startswith(f"/t/{case}/")}
    query = """SELECT s.*, c.local_port, c.remote_port, c.side FROM tls_stream AS s JOIN connection AS c
        USING (connection_id)"""
    found = run.analysis.query(query).to_pylist()
    client = [row for row in found if row["side"] == "client" and row["local_port"] in ports]
    server = [row for row in found if row["side"] == "server" and row["remote_port"] in ports]
    assert len(client) == len(server) == len(ports)
    assert {row["remote_port"] for row in client} == {port}
    assert {(row["basis"], row["library"]) for row in client} == {expected.client}
    assert {(row["basis"], row["library"]) for row in server} == {expected.server_tie}
    sent = {row["local_port"]: (row["sent_bytes"], row["received_bytes"]) for row in client}
    assert sent == {row["remote_port"]: (row["received_bytes"], row["sent_bytes"]) for row in server}


def test_both_ends_of_a_request_inside_tls_are_one_call(run: Run) -> None:
    query = """SELECT count(*) AS requests, count(server_request_id) AS joined, any_value(join_basis) AS basis
        FROM call JOIN request AS r ON r.request_id = client_request_id
        WHERE r.statement LIKE '/t/%' AND r.statement NOT LIKE '%/forwarded/%'"""
    (found,) = run.analysis.query(query).to_pylist()
    assert found["joined"] == found["requests"] >= len(run.answered) / 2
    assert found["basis"] == "position"


def test_targets_and_what_cannot_be_read(run: Run) -> None:
    targets = rows(run.bundle, "uprobe_target")
    attached = {row["library"]: row for row in targets if row["status"] == "attached"}
    assert {"openssl", "gnutls", "go"} <= attached.keys()
    assert attached["go"]["path"].endswith("/program")
    (unread,) = [row for row in targets if row["status"] != "attached"]
    (forwarder,) = {r["pid"] for r in rows(run.bundle, "connection", local_port=run.ports["forwarder"][0])}
    assert (unread["pid"], unread["library"], unread["status"]) == (forwarder, "unknown", "unsupported")
    assert unread["reason"]
    probe = next(p for p in run.bundle.manifest.nodes[0].probes if p.probe == "tls")
    assert (probe.status, probe.lost_count) == ("attached", 0)
    query = f"""SELECT encrypted_bytes > 0 AS opaque, c.pid = {forwarder} AS forwarded
        FROM coverage JOIN connection AS c USING (connection_id) WHERE protocols = 'tls'"""
    coverage = run.analysis.query(query).to_pylist()
    assert len(coverage) > 20
    # What comes to the forwarder is read at its other ends.
    assert all(row["opaque"] == row["forwarded"] for row in coverage)


def test_plaintext_of_other_ports_is_not_copied(run: Run) -> None:
    bundle = Bundle(Path(run.bundle.path).parent / "port.ktape")
    found = [row for row in rows(bundle, "socket_data") if row["source"] == "tls"]
    assert {row["payload"].split(b" ")[0] for row in found} == {b"GET", b"HTTP/1.1", b"/t/some"}
    wanted = {r["connection_id"] for r in rows(bundle, "connection") if run.ports["asyncio"][1] in ports_of(r)}
    assert {row["connection_id"] for row in found} == wanted
    assert len(wanted) == 2
    # What the kernel told are the calls of these sessions, handshakes included; other servers would add at least five.
    probe = next(p for p in bundle.manifest.nodes[0].probes if p.probe == "tls")
    calls = sum(row["call_count"] for row in rows(bundle, "tls_stream"))
    assert calls <= probe.event_count < calls + 5


def ports_of(row: dict[str, Any]) -> tuple[int, int]:
    return row["local_port"], row["remote_port"]


def test_a_process_of_another_root_that_starts_later_is_read(run: Run) -> None:
    (client,) = [row for row in requests(run, "/t/late/") if row["side"] == "client"]
    (server,) = [row for row in requests(run, "/t/late/") if row["side"] == "server"]
    assert client["client_port"] == server["client_port"] == run.late
    assert shape(client)[2:] == shape(server)[2:]
    found = {row["inode"] for row in rows(run.bundle, "uprobe_target", library="openssl", status="attached")}
    (folder,) = {Path(run.bundle.path).parent}
    (copy,) = (folder / "root").rglob("libssl.so.3")
    assert copy.stat().st_ino in found


def test_returns_of_go_functions_are_those_a_disassembler_finds(tmp_path: Path) -> None:
    program = build_go(tmp_path, "-buildmode=exe")
    name = "crypto/tls.(*Conn).Read"
    listing = subprocess.run(
        ["go", "tool", "objdump", "-s", r"^crypto/tls\.\(\*Conn\)\.Read$", str(program)],
        check=True,
        capture_output=True,
        text=True,
    ).stdout
    instructions = [line.split() for line in listing.splitlines() if line.startswith("  ")]
    with Elf(str(program)) as elf:
        (found,) = gobinary.functions(elf, (name, "crypto/tls.(*Conn).Unheard")).values()
        returns = [elf.offset_of(int(words[1], 16)) for words in instructions if words[3] == "RET"]
        assert found.entry == elf.offset_of(int(instructions[0][1], 16))
    assert list(found.returns) == returns
    assert len(returns) > 1


def test_damaged_tables_of_go_are_refused_or_read(tmp_path: Path) -> None:
    program = build_go(tmp_path)
    whole = program.read_bytes()
    with Elf(str(program)) as elf:
        table = elf.sections[".gopclntab"]
    dice = random.Random(3)
    for _ in range(60):
        data = bytearray(whole)
        for _ in range(4):
            data[table.offset + 8 + dice.randrange(64)] = dice.randrange(256)
        for _ in range(2000):
            data[table.offset + 72 + dice.randrange(table.size - 72)] = dice.randrange(256)
        (tmp_path / "damaged").write_bytes(data)
        with contextlib.suppress(ElfError), Elf(str(tmp_path / "damaged")) as elf:
            gobinary.functions(elf, ("crypto/tls.(*Conn).Read", "crypto/tls.(*Conn).Write"))
