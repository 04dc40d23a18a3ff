"""Folders that come and go are known afterwards, on any file system."""

from __future__ import annotations

import time
from pathlib import Path

from kubetape.capture.cgroup_watch import CgroupWatch

SEEN_S = 10.0


def wait_for(watch: CgroupWatch, path: str) -> None:
    deadline = time.monotonic() + SEEN_S
    while path not in watch.made:
        assert time.monotonic() < deadline, watch.made
        time.sleep(0.005)


def test_a_folder_made_and_removed_is_known_with_its_inode(tmp_path: Path) -> None:
    (tmp_path / "kubepods").mkdir()
    watch = CgroupWatch(str(tmp_path)).start()
    pod = tmp_path / "kubepods" / "pod1"
    (pod / "container").mkdir(parents=True)
    inodes = {"/kubepods/pod1": pod.stat().st_ino, "/kubepods/pod1/container": (pod / "container").stat().st_ino}
    wait_for(watch, "/kubepods/pod1/container")
    (pod / "container").rmdir()
    (pod / "later").mkdir()
    wait_for(watch, "/kubepods/pod1/later")
    inodes["/kubepods/pod1/later"] = (pod / "later").stat().st_ino
    (pod / "later").rmdir()
    assert watch.stop() == inodes == watch.stop()
    assert watch.note == ""


def test_without_a_tree_there_is_nothing_to_watch() -> None:
    assert CgroupWatch("").start().stop() == {}
