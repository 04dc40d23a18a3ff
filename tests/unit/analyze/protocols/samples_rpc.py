"""What the client and what the server said, per protocol: seeds for damage."""

from __future__ import annotations

from tests.unit.analyze.protocols import test_sip

SAMPLES: dict[str, tuple[bytes, bytes]] = {
    "sip": (
        b"".join(p[1] for p in test_sip.CALL if p[0] == "c"),
        b"".join(p[1] for p in test_sip.CALL if p[0] == "s"),
    ),
}
