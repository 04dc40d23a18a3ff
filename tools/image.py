"""The recorder's image as an OCI archive, from Debian packages and pinned Python packages; no base image is pulled.

    python -m tools.image [-o FILE] [--name NAME:TAG] [--work FOLDER]        (root, on Debian 12, with debootstrap)

The same contents as deploy/Containerfile makes. A node's containerd takes it without a registry:
`ctr -n k8s.io images import FILE`. Format: OCI image specification 1.0 (layout, manifest, config, one layer).
"""

from __future__ import annotations

import argparse
import gzip
import hashlib
import io
import json
import os
import platform
import shutil
import subprocess
import sys
import tarfile
import tempfile
from pathlib import Path
from typing import Any

import kubetape

ROOT = Path(__file__).resolve().parents[1]
RELEASE = "bookworm"
PACKAGES = ("python3", "python3-bpfcc", "libbpfcc", "ca-certificates")
# What recording needs; the analyzer's packages stay outside.
PYTHON_PACKAGES = ("click", "numpy", "pyarrow", "kubernetes")
PLACE = "opt/kubetape"
NOT_NEEDED = ("var/cache/apt", "var/lib/apt/lists", "usr/share/doc", "usr/share/man", "usr/share/locale", "var/log")
_COMMAND = f'#!/bin/sh\nPYTHONPATH=/{PLACE} exec /usr/bin/python3 -m kubetape "$@"\n'
ARCHITECTURES = {"x86_64": "amd64", "aarch64": "arm64"}


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("-o", "--output", default=f"out/kubetape-{kubetape.__version__}.tar")
    parser.add_argument("--name", default=f"docker.io/library/kubetape:{kubetape.__version__}")
    parser.add_argument("--work", help="folder for the root file system; kept, and used again")
    options = parser.parse_args()
    if os.geteuid() != 0 or not shutil.which("debootstrap"):
        print("image: needs root and the package debootstrap", file=sys.stderr)
        return 2
    output = Path(options.output)
    output.parent.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(prefix="kubetape-image-") as temporary:
        root = Path(options.work or temporary) / "root"
        try:
            make_root(root)
        except subprocess.CalledProcessError as error:
            print(f"image: {' '.join(map(str, error.cmd[:3]))} failed: {error.stderr[-400:]}", file=sys.stderr)
            return 2
        archive(root, output, options.name)
    print(f"{output}: {output.stat().st_size / 1e6:.0f} MB, image {options.name}")
    return 0


def mirror() -> str:
    """Where this machine takes Debian's packages from."""
    for file in sorted(Path("/etc/apt").rglob("*")):
        if file.suffix not in (".sources", ".list"):
            continue
        for line in file.read_text("utf8").splitlines():
            words = line.split()
            if len(words) > 1 and words[0] in ("URIs:", "deb"):
                return next(word for word in words[1:] if "://" in word)
    return ""


def make_root(root: Path) -> None:
    """A root file system with the packages and kubetape in it. Raises CalledProcessError."""
    if not (root / "etc/debian_version").exists():
        source = [mirror()] if mirror() else []
        _run("debootstrap", "--variant=minbase", f"--include={','.join(PACKAGES)}", RELEASE, str(root), *source)
    place = root / PLACE
    shutil.rmtree(place, ignore_errors=True)
    pip = [sys.executable, "-m", "pip", "--quiet", "--disable-pip-version-check"]
    with tempfile.TemporaryDirectory() as wheels:
        _run(*pip, "wheel", "--no-deps", "--no-build-isolation", "-w", wheels, str(ROOT))
        target = ["--target", str(place), "--ignore-installed"]
        _run(*pip, "install", *target, "-c", str(ROOT / "requirements.lock"), *PYTHON_PACKAGES)
        _run(*pip, "install", *target, "--no-deps", *(str(wheel) for wheel in Path(wheels).iterdir()))
    command = root / "usr/local/bin/kubetape"
    command.write_text(_COMMAND)
    command.chmod(0o755)
    for name in NOT_NEEDED:
        for entry in (root / name).glob("*"):
            shutil.rmtree(entry) if entry.is_dir() and not entry.is_symlink() else entry.unlink()


def _run(*command: str) -> None:
    subprocess.run(command, check=True, capture_output=True, text=True)


def archive(root: Path, output: Path, name: str) -> None:
    """Write the OCI archive of a root file system; equal roots make equal archives."""
    with tempfile.TemporaryDirectory(dir=output.parent) as folder:
        layer = Path(folder) / "layer"
        plain = _write_layer(root, layer)
        config = {
            "architecture": ARCHITECTURES.get(platform.machine(), platform.machine()),
            "os": "linux",
            "config": {
                "Entrypoint": ["kubetape"],
                "Env": [
                    "PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin",
                    f"PYTHONPATH=/{PLACE}",
                ],
            },
            "rootfs": {"type": "layers", "diff_ids": [plain]},
            "history": [{"created_by": "kubetape tools/image.py"}],
        }
        blobs: dict[str, bytes] = {}
        config_entry = _blob(blobs, "application/vnd.oci.image.config.v1+json", config)
        digest, size = _digest(layer)
        layer_entry = {"mediaType": "application/vnd.oci.image.layer.v1.tar+gzip", "digest": digest, "size": size}
        manifest = {
            "schemaVersion": 2,
            "mediaType": "application/vnd.oci.image.manifest.v1+json",
            "config": config_entry,
            "layers": [layer_entry],
        }
        entry = _blob(blobs, "application/vnd.oci.image.manifest.v1+json", manifest)
        entry["annotations"] = {
            "io.containerd.image.name": name,
            "org.opencontainers.image.ref.name": name.rpartition(":")[2],
        }
        partial = output.with_suffix(".partial")
        with tarfile.open(partial, "w") as out:
            _add(out, "oci-layout", b'{"imageLayoutVersion":"1.0.0"}')
            _add(out, "index.json", json.dumps({"schemaVersion": 2, "manifests": [entry]}).encode())
            for blob, data in blobs.items():
                _add(out, f"blobs/sha256/{blob}", data)
            info = tarfile.TarInfo(f"blobs/sha256/{digest.partition(':')[2]}")
            info.size = size
            with layer.open("rb") as data_file:
                out.addfile(info, data_file)
        partial.replace(output)


def _write_layer(root: Path, path: Path) -> str:
    """The root as a compressed tar; the digest of the uncompressed one."""
    hashing = _Hashing()

    def plain(info: tarfile.TarInfo) -> tarfile.TarInfo | None:
        # Device nodes are the runtime's to make.
        if info.ischr() or info.isblk():
            return None
        info.mtime = 0
        return info

    with (
        path.open("wb") as file,
        gzip.GzipFile(fileobj=file, mode="wb", compresslevel=1, mtime=0, filename="") as packed,
    ):
        hashing.target = packed
        with tarfile.open(fileobj=hashing, mode="w|", format=tarfile.PAX_FORMAT) as out:  # type: ignore[call-overload]
            for entry in sorted(root.rglob("*")):
                out.add(entry, str(entry.relative_to(root)), recursive=False, filter=plain)
    return f"sha256:{hashing.hash.hexdigest()}"


class _Hashing:
    """A file that hashes what passes through."""

    def __init__(self) -> None:
        self.hash = hashlib.sha256()
        self.target: Any = None

    def write(self, data: bytes) -> int:
        self.hash.update(data)
        self.target.write(data)
        return len(data)


def _blob(blobs: dict[str, bytes], kind: str, value: dict[str, Any]) -> dict[str, Any]:
    data = json.dumps(value, sort_keys=True).encode()
    name = hashlib.sha256(data).hexdigest()
    blobs[name] = data
    return {"mediaType": kind, "digest": f"sha256:{name}", "size": len(data)}


def _digest(path: Path) -> tuple[str, int]:
    with path.open("rb") as file:
        return f"sha256:{hashlib.file_digest(file, 'sha256').hexdigest()}", path.stat().st_size


def _add(out: tarfile.TarFile, name: str, data: bytes) -> None:
    info = tarfile.TarInfo(name)
    info.size = len(data)
    out.addfile(info, io.BytesIO(data))


if __name__ == "__main__":
    sys.exit(main())
