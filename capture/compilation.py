"""Texts of C become instructions and maps: compiled by bcc in processes of its own (compiler.py), several at once."""

from __future__ import annotations

import base64
import contextlib
import json
import os
import socket
import subprocess
import sys
import tempfile
from collections.abc import Collection, Iterator, Sequence
from typing import Any

import numpy as np

from kubetape.capture import compiler, headers
from kubetape.capture.btf import Btf
from kubetape.capture.maps import Map
from kubetape.errors import CaptureError


@contextlib.contextmanager
def header_tree(types: Btf | None, more: Collection[str] = ()) -> Iterator[str]:
    """A folder for BCC_KERNEL_SOURCE, removed afterwards; real kernel headers where there is no BTF.

    more: names of further structs. Yields how the headers came about, for the manifest. Raises CaptureError where there
    is neither.
    """
    if types is None:
        folder = f"/lib/modules/{os.uname().release}/build"
        if not os.path.isdir(folder) and not os.path.exists("/sys/kernel/kheaders.tar.xz"):
            raise CaptureError(
                "this kernel offers neither BTF (/sys/kernel/btf/vmlinux) nor headers: install the package with the "
                f"headers of kernel {os.uname().release}, or use a kernel built with CONFIG_DEBUG_INFO_BTF"
            )
        yield "kernel headers"
        return
    before = os.environ.get("BCC_KERNEL_SOURCE")
    with tempfile.TemporaryDirectory(prefix="kubetape-headers-") as folder:
        os.environ["BCC_KERNEL_SOURCE"] = headers.write_tree(folder, types, more)
        try:
            yield "BTF"
        finally:
            if before is None:
                del os.environ["BCC_KERNEL_SOURCE"]
            else:
                os.environ["BCC_KERNEL_SOURCE"] = before


class Compilation:
    """One C text on its way through the compiler's process, which inherits this one's environment (header_tree)."""

    def __init__(self, text: str, flags: Collection[str] = ()) -> None:
        self._socket, theirs = socket.socketpair()
        self._said = os.memfd_create("kubetape-compiler")
        given = os.memfd_create("kubetape-source")
        try:
            os.write(given, text.encode())
            os.lseek(given, 0, os.SEEK_SET)
            # -P: nothing of the folder it happens to run in.
            command = [sys.executable, "-P", "-m", compiler.__name__, str(theirs.fileno()), *flags]
            self._process = subprocess.Popen(
                command, stdin=given, stdout=subprocess.DEVNULL, stderr=self._said, pass_fds=[theirs.fileno()],
                start_new_session=True,  # Ctrl-C is for the recorder, which ends what it began
            )  # fmt: skip
        finally:
            os.close(given)
            theirs.close()

    def wait(self) -> tuple[dict[str, Any], list[int]]:
        """The compiler's document and the descriptors of its maps. Raises CaptureError, one line."""
        try:
            _, descriptors, _, _ = socket.recv_fds(self._socket, 1, _MOST_MAPS + 1)
        finally:
            self.stop()
        os.lseek(self._said, 0, os.SEEK_SET)
        with open(self._said, errors="replace") as file:
            said = file.read().splitlines()
        if not descriptors:
            raise CaptureError(f"the compiler of the probes ended without a result: {said[-1] if said else 'no word'}")
        with open(descriptors[0], "rb") as result:
            result.seek(0)
            document: dict[str, Any] = json.load(result)
        if "missing" in document:
            if document.get("foreign"):
                raise CaptureError(
                    "the installed 'bcc' is not the BPF Compiler Collection: remove it (pip uninstall bcc) and "
                    "install python3-bpfcc"
                )
            raise CaptureError(
                f"recording needs the distribution's bcc package ({document['missing']}): install python3-bpfcc "
                "(Debian, Ubuntu) or python3-bcc (Fedora), and use a Python that sees it"
            )
        if "error" in document:
            detail = [line for line in said if "error" in line] or [document["error"]]
            raise CaptureError(f"the probes do not compile for this kernel: {detail[0]}")
        return document, descriptors[1:]

    def stop(self) -> None:
        """End the process if it still runs."""
        self._process.kill()
        self._process.wait()
        self._socket.close()


def compiled(text: str, flags: Collection[str] = ()) -> Module:
    """One text, compiled. Raises CaptureError."""
    return Module([Compilation(text, flags)])


_MOST_MAPS = 250  # the kernel passes 253 descriptors in one message (include/net/scm.h, SCM_MAX_FD)


class Module:
    """Compiled texts as one: their functions' instructions and their maps.

    Source of the relocation: kernel Documentation/bpf/instruction-set, 64-bit immediate instructions.
    """

    def __init__(self, running: Sequence[Compilation]) -> None:
        """Wait for all of them. Of a map in several texts the first one's is taken. Raises CaptureError."""
        self._functions: dict[str, bytes] = {}
        self._maps: dict[str, Map] = {}
        self.bcc = ""
        self.syscalls: dict[int, str] = {}
        for compilation in running:
            self._add(*compilation.wait())

    def _add(self, document: dict[str, Any], descriptors: list[int]) -> None:
        numbers: dict[int, int] = {}
        for row, descriptor in zip(document["maps"], descriptors, strict=True):
            theirs = row.pop("descriptor")
            if row["name"] in self._maps:
                os.close(descriptor)
            else:
                self._maps[row["name"]] = Map(**row, descriptor=descriptor)
            numbers[theirs] = self._maps[row["name"]].descriptor
        for name, text in document["functions"].items():
            self._functions.setdefault(name, _relocated(base64.b64decode(text), numbers))
        self.bcc = document["bcc"]
        self.syscalls = {int(number): name for number, name in document["syscalls"].items()}

    def instructions(self, function: str) -> bytes:
        return self._functions[function]

    def map_fd(self, name: str) -> int:
        return self.table(name).descriptor

    def table(self, name: str) -> Map:
        if name not in self._maps:
            raise CaptureError(f"the map {name} was not made")
        return self._maps[name]

    def close(self) -> None:
        """Give the maps back; what runs in the kernel keeps its own hold of them."""
        for table in self._maps.values():
            os.close(table.descriptor)
        self._maps.clear()


_INSTRUCTION = np.dtype([("code", "u1"), ("registers", "u1"), ("offset", "<i2"), ("immediate", "<i4")])
_LOAD_64, _FROM_MAPS = 0x18, (1, 2)  # BPF_PSEUDO_MAP_FD, BPF_PSEUDO_MAP_VALUE, in the upper half of the registers


def _relocated(instructions: bytes, numbers: dict[int, int]) -> bytes:
    """The instructions with the map descriptors of this process in place of the compiler's."""
    code = np.frombuffer(instructions, _INSTRUCTION).copy()
    at = np.flatnonzero((code["code"] == _LOAD_64) & np.isin(code["registers"] >> 4, _FROM_MAPS))
    code["immediate"][at] = [numbers[number] for number in code["immediate"][at].tolist()]
    return code.tobytes()
