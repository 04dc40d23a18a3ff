"""`kubetape import pcap`: what it prints, and its exit statuses."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

from click.testing import CliRunner

from kubetape.bundle.reader import Bundle
from kubetape.commands.import_ import command
from tests.unit.capture.pcap.conversation import START_NS, Conversation
from tests.unit.capture.pcap.craft import ip, pcap


def test_import(tmp_path: Path) -> None:
    talk = Conversation()
    talk.handshake()
    talk.records.append((START_NS + 10**9, ip("10.0.0.1", "10.0.0.2", 1, b"ping")))
    capture, output = tmp_path / "some.pcap", tmp_path / "out.ktape"
    capture.write_bytes(pcap(talk.records))
    result = CliRunner().invoke(command, ["pcap", str(capture), "-o", str(output)])
    assert result.exit_code == 0
    assert result.output.splitlines() == [
        f"{output}: 4 packets, 1 TCP connections, 0 UDP conversations",
        "note: 1 packets were left out: ICMP",
    ]
    assert Bundle(output).manifest.nodes[0].name == "some"
    result = CliRunner().invoke(command, ["pcap", str(capture), "-o", str(output), "--node", "edge", "--json"])
    assert json.loads(result.output)["packet_count"] == 4
    assert Bundle(output).manifest.nodes[0].name == "edge"


def test_an_unusable_file_is_one_line_and_status_2(tmp_path: Path) -> None:
    capture = tmp_path / "x.pcap"
    capture.write_bytes(b"nonsense")
    done = subprocess.run(
        [sys.executable, "-m", "kubetape", "import", "pcap", str(capture), "-o", str(tmp_path / "o.ktape")],
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 2
    assert done.stdout == ""
    assert done.stderr.startswith("kubetape: ")
    assert done.stderr.count("\n") == 1
