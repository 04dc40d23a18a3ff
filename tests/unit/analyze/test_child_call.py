"""Which request a call is for, where one thread serves several at a time."""

from __future__ import annotations

from pathlib import Path

from kubetape.analyze.analysis import Analysis
from tests.shop import BundleMaker, Pod, http

SERVER, BACK = ("10.0.0.2", 8080), ("10.0.0.3", 80)


class Loop:
    """A server of one thread; requests and calls by name, times in ms."""

    def __init__(self) -> None:
        self.maker = BundleMaker(pods=[Pod("server-1", "server", SERVER[0]), Pod("back-1", "back", BACK[0])])

    def serve(self, name: str, start: float, end: float) -> None:
        port = 40000 + len(self.maker.connections)
        end_id = self.maker.connect(("10.0.0.1", port), SERVER, "server", from_start=False)
        self.maker.say(end_id, start, "receive", http(f"/in/{name}")[0])
        self.maker.say(end_id, end, "send", http()[1])

    def call(self, name: str, start: float, end: float) -> None:
        port = 50000 + len(self.maker.connections)
        end_id = self.maker.connect((SERVER[0], port), BACK, "client", from_start=False)
        self.maker.say(end_id, start, "send", http(f"/out/{name}")[0])
        self.maker.say(end_id, end, "receive", http()[1])

    def links(self, path: Path) -> dict[str, tuple[str, str]]:
        """(parent, basis) by call."""
        self.maker.data.sort(key=lambda row: row["ts_ns"])
        query = (
            "SELECT c.statement AS call, p.statement AS parent, l.basis FROM child_call AS l "
            "JOIN request AS c USING (request_id) JOIN request AS p ON p.request_id = l.parent_request_id"
        )
        rows = Analysis(self.maker.write(path / "x.ktape")).query(query).to_pylist()
        return {row["call"].removeprefix("/out/"): (row["parent"].removeprefix("/in/"), row["basis"]) for row in rows}


def test_one_request_at_a_time(tmp_path: Path) -> None:
    loop = Loop()
    loop.serve("a", 10, 30)
    loop.call("a1", 11, 15)
    loop.call("a2", 16, 20)
    assert loop.links(tmp_path) == {"a1": ("a", "only"), "a2": ("a", "only")}


def test_a_loop_reacts_to_what_it_took_last(tmp_path: Path) -> None:
    loop = Loop()
    loop.serve("a", 10, 40)
    loop.serve("b", 12, 50)
    loop.call("a1", 11, 15)
    loop.call("b1", 13, 25)
    loop.call("a2", 16, 30)
    loop.call("b2", 26, 35)
    found = loop.links(tmp_path)
    assert found == {"a1": ("a", "only"), "b1": ("b", "turn"), "a2": ("a", "turn"), "b2": ("b", "turn")}


def test_of_two_taken_in_a_row_it_cannot_be_told(tmp_path: Path) -> None:
    loop = Loop()
    loop.serve("a", 10, 40)
    loop.serve("b", 10.5, 50)
    loop.call("x", 11, 15)
    assert loop.links(tmp_path) == {"x": ("b", "guess")}
