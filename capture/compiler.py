"""The compiler's process: bcc makes instructions and maps of a C text, and hands both to the recorder.

    python -m kubetape.capture.compiler DESCRIPTOR < TEXT        DESCRIPTOR: a Unix socket; further arguments: for clang

A process of its own, because clang stays in memory for good once it is loaded (some 120 MB), and because several
can work at once. The answer is one message: the descriptors of a file with a JSON document and of the maps. What
clang says goes to standard error.

The document, where it compiled: bcc (its version), functions {name: instructions, base64}, maps in the order of their
descriptors [{name, descriptor (its number here, as it stands in the instructions), kind (enum bpf_map_type), key_bytes,
value_bytes, entry_count}], syscalls {number: name} of this machine as far as bcc has them. Else missing (there is no
bcc; foreign: another package has its name) or error (bcc's).
"""

from __future__ import annotations

import base64
import ctypes
import json
import os
import platform
import socket
import sys
from typing import Any

# Functions of libbcc (src/cc/bpf_module.h) that its Python package does not use, and so has no types for.
_UNDECLARED = {
    "bpf_table_name": ctypes.c_char_p,
    "bpf_table_fd_id": ctypes.c_int,
    "bpf_table_key_size_id": ctypes.c_size_t,
    "bpf_table_leaf_size_id": ctypes.c_size_t,
}
_KEPT: list[Any] = []
_FLAGS = ["-Wno-unused-function", "-Wno-macro-redefined"]


def main() -> int:
    answer = socket.socket(fileno=int(sys.argv[1]))
    document: dict[str, Any] = {}
    try:
        import bcc

        if not hasattr(bcc, "BPF"):
            document = {"missing": "", "foreign": True}
        else:
            document = _compiled(bcc, sys.stdin.buffer.read(), sys.argv[2:])
    except ImportError as error:
        document = {"missing": str(error)}
    descriptors = [row["descriptor"] for row in document.get("maps", [])]
    file = os.memfd_create("kubetape-compiled")
    os.write(file, json.dumps(document).encode())
    socket.send_fds(answer, [b"."], [file, *descriptors])
    return 0


def _compiled(bcc: Any, text: bytes, flags: list[str]) -> dict[str, Any]:
    from bcc.libbcc import lib
    from bcc.syscall import syscalls

    try:
        bpf = bcc.BPF(text=text, cflags=[*flags, *_FLAGS])
    except Exception as error:  # bcc raises plain Exception
        return {"error": str(error)}
    module = bpf.module
    for name, result in _UNDECLARED.items():
        getattr(lib, name).restype, getattr(lib, name).argtypes = result, [ctypes.c_void_p, ctypes.c_size_t]
    lib.bpf_num_tables.argtypes = [ctypes.c_void_p]
    functions = [lib.bpf_function_name(module, n) for n in range(lib.bpf_num_functions(module))]
    maps = [
        {
            "name": lib.bpf_table_name(module, n).decode(),
            "descriptor": lib.bpf_table_fd_id(module, n),
            "kind": lib.bpf_table_type_id(module, n),
            "key_bytes": lib.bpf_table_key_size_id(module, n),
            "value_bytes": lib.bpf_table_leaf_size_id(module, n),
            "entry_count": lib.bpf_table_max_entries_id(module, n),
        }
        for n in range(lib.bpf_num_tables(module))
    ]
    _KEPT.append(bpf)  # with it go its maps
    is_x86 = platform.machine() == "x86_64"  # the only one whose calls bcc lists
    return {
        "bcc": getattr(bcc, "__version__", "unknown"),
        "functions": {name.decode(): base64.b64encode(bpf.dump_func(name)).decode() for name in functions},
        "maps": maps,
        "syscalls": {number: name.decode() for number, name in syscalls.items()} if is_x86 else {},
    }


if __name__ == "__main__":
    # Without the interpreter's leave-taking: it would free each of the compiler's objects.
    os._exit(main())
