"""process, process_event, thread and cgroup tables."""

from __future__ import annotations

from typing import Any

from kubetape.bundle.writer import BundleWriter
from kubetape.capture.layouts import Layout, defines
from kubetape.capture.records import Array, Window
from kubetape.capture.spool import SpoolReader

Row = dict[str, Any]


def arguments(window: Window, layout: Layout) -> dict[tuple[int, int], str]:
    """(time, thread) of each exec in the window -> its command line, NULs as blanks."""
    found = {}
    for offset in window.offsets("process_event").tolist():
        event = window.data[offset : offset + layout.dtype.itemsize].view(layout.dtype)[0]
        size = int(event["argument_bytes"])
        if size:
            begin = offset + layout.dtype.itemsize
            raw = window.data[begin : begin + size].tobytes()
            found[int(event["ts_ns"]), int(event["tid"])] = (
                raw.rstrip(b"\0").replace(b"\0", b" ").decode(errors="replace")
            )
    return found


def write(
    writer: BundleWriter,
    spool: SpoolReader,
    node: str,
    events: Array,
    argument_parts: list[dict[tuple[int, int], str]],
    connections: Array,
    io_uring_pids: set[int],
) -> None:
    marks = defines()
    kinds = {
        marks["PROCESS_EXEC"]: "exec",
        marks["PROCESS_FORK"]: "fork",
        marks["PROCESS_EXIT"]: "exit",
        marks["PROCESS_OOM_KILL"]: "oom_kill",
    }
    command_lines = {k: v for part in argument_parts for k, v in part.items()}
    processes: dict[int, list[Row]] = {}
    threads: dict[int, Row] = {}
    for listed in spool.objects("processes"):
        for found in listed["processes"]:
            pid = found["pid"]
            for tid, command in found.pop("threads", []):
                threads[tid] = {"node": node, "tid": tid, "pid": pid, "command": command}
            if pid in processes:
                current = processes[pid][-1]
                current.update({k: v for k, v in found.items() if v is not None and current.get(k) is None})
            else:
                processes[pid] = [{"node": node, **found}]
    rows: list[Row] = []
    for event in events:
        what, pid, tid = int(event["what"]), int(event["pid"]), int(event["tid"])
        ts_ns = int(event["ts_ns"])
        command = event["command"].tobytes().split(b"\0", 1)[0].decode(errors="replace")
        line = command_lines.get((ts_ns, tid))
        status = int(event["status"])
        if what == marks["PROCESS_THREAD"]:
            threads[tid] = {"node": node, "tid": tid, "pid": pid, "command": command}
            continue
        row: Row = {
            "node": node,
            "ts_ns": ts_ns,
            "kind": kinds[what],
            "pid": pid,
            "tid": tid,
            "parent_pid": int(event["parent_pid"]) or None,
            "command": command,
            "cgroup_id": int(event["cgroup_id"]) or None,
        }
        if what == marks["PROCESS_EXEC"]:
            row["arguments"] = line
            row["executable"] = line.split(" ", 1)[0] if line else command
        elif what == marks["PROCESS_EXIT"]:
            row["exit_code"] = status >> 8 & 255 if not status & 127 else None
            row["exit_signal"] = status & 127 or None
        rows.append(row)
        _follow(processes, row, event)
        if what in (marks["PROCESS_EXEC"], marks["PROCESS_FORK"]):
            threads[pid] = {"node": node, "tid": pid, "pid": pid, "command": command}
    _name_victims(rows, processes)
    writer.write_rows("process_event", rows)
    for pid in io_uring_pids:
        if pid in processes:
            processes[pid][-1]["uses_io_uring"] = True
    everyone = [p for uses in processes.values() for p in uses]
    for process in everyone:
        process.setdefault("existed_before", False)
        process.setdefault("command", "")
    writer.write_rows("process", everyone)
    writer.write_rows("thread", list(threads.values()))


def _name_victims(rows: list[Row], processes: dict[int, list[Row]]) -> None:
    """In which cgroup an OOM kill was: the kernel names the victim only, which says so itself when it ends."""
    following: dict[int, Row] = {}
    for row in reversed(rows):
        if row["kind"] == "exit":
            following[row["pid"]] = row
        elif row["kind"] == "oom_kill":
            known = following.get(row["pid"]) or next(iter(processes.get(row["pid"], [])[-1:]), {})
            row["cgroup_id"] = row["cgroup_id"] or known.get("cgroup_id")
            row["command"] = row["command"] or known.get("command") or ""


def _follow(processes: dict[int, list[Row]], row: Row, event: Any) -> None:
    """Keep the `process` rows in step with one event; a pid used again is a new row."""
    uses = processes.setdefault(row["pid"], [])
    began = int(event["start_ns"]) or None
    if row["kind"] == "fork" or not uses:
        known = uses[-1] if uses else None
        # A process found by reading /proc during the recording may have forked after it began.
        same = known is not None and known.get("start_ns") and began and abs(known["start_ns"] - began) < 20_000_000
        if not same:
            uses.append({"node": row["node"], "pid": row["pid"], "start_ns": began, "existed_before": False})
    process = uses[-1]
    # The exit is told by the thread that goes last, whose name is its own.
    if row["kind"] in ("exec", "fork") or not process.get("command"):
        process["command"] = row["command"]
    process["parent_pid"] = process.get("parent_pid") or row["parent_pid"]
    process["cgroup_id"] = process.get("cgroup_id") or row["cgroup_id"]
    if process.get("uid") is None and row["kind"] != "oom_kill":
        process["uid"] = int(event["uid"])
    if int(event["netns_id"]):
        process["netns_id"] = process.get("netns_id") or int(event["netns_id"])
    if row["kind"] == "exec":
        process["arguments"] = row.get("arguments") or process.get("arguments")
        process["executable"] = row.get("executable") or process.get("executable")
    elif row["kind"] == "exit":
        process["end_ns"] = row["ts_ns"]
        process["exit_code"], process["exit_signal"] = row.get("exit_code"), row.get("exit_signal")
