"""Whether a connection speaks NATS."""

from __future__ import annotations

from kubetape.analyze.protocols.contract import Sample
from kubetape.analyze.protocols.nats.parse import find_command, parse_command
from kubetape.analyze.protocols.nats.types import CLIENT_VERBS, SERVER_VERBS

PORTS = frozenset({4222})
MAX_COMMANDS = 64  # of one place


def detect(sample: Sample) -> float:
    """Commands of the client on one side and of the server on the other; INFO and CONNECT carry JSON."""
    client = _verbs([sample.client, *sample.client_runs], sample.from_start)
    server = _verbs([sample.server, *sample.server_runs], sample.from_start)
    if not client and not server:
        return 0.0
    if client & SERVER_VERBS or server & CLIENT_VERBS:
        return 0.0
    if "INFO" in server or "CONNECT" in client:
        return 0.97 if client and server else 0.85
    if client & CLIENT_VERBS and server & SERVER_VERBS:
        return 0.95
    telling = (client | server) & {"PUB", "HPUB", "MSG", "HMSG"}
    if telling:
        other = sample.server if not server else sample.client if not client else b""
        return 0.7 if not other else 0.4
    if (client | server) <= {"PING", "PONG"} and sample.server_port in PORTS and client and server:
        return 0.55
    # SUB and UNSUB have no more grammar than any line of words; PING and PONG are Redis and IRC, too.
    return 0.6 if "SUB" in client and server else 0.2


def _verbs(heads: list[bytes], from_start: bool) -> set[str]:
    verbs: set[str] = set()
    for number, head in enumerate(heads):
        place = 0 if from_start and number == 0 else find_command(head, 0)
        for _ in range(MAX_COMMANDS):
            if not 0 <= place < len(head):
                break
            parsed = parse_command(head, place)
            if not isinstance(parsed, tuple):
                break
            command = parsed[1]
            if command.verb not in ("INFO", "CONNECT") or '"' in command.text:
                verbs.add(command.verb)
            place += parsed[0]
    return verbs
