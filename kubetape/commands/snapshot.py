"""kubetape snapshot: Kubernetes metadata into a bundle."""

from __future__ import annotations

import sys

import click


@click.command("snapshot", help="Kubernetes metadata only, into a bundle. Secrets are never read.")
@click.option("-o", "--output", required=True, type=click.Path(), help="The bundle to write.")
@click.option("--from-dir", type=click.Path(), help="Objects from files: `kubectl get -o json`, `cluster-info dump`.")
@click.option("--kubeconfig", type=click.Path(), help="Configuration file; default as kubectl's.")
@click.option("--context", help="Context of the configuration.")
@click.option("--kubelet", help="URL of a kubelet, for its pods where the API gives none.")
@click.option("--node", help="Also the containers of this node, from the runtime's files and /proc.")
def command(
    output: str,
    from_dir: str | None,
    kubeconfig: str | None,
    context: str | None,
    kubelet: str | None,
    node: str | None,
) -> int:
    from kubetape.capture.kubernetes.bundle import write_snapshot
    from kubetape.capture.kubernetes.snapshot import SnapshotOptions, take
    from kubetape.capture.samplers.files import host_root
    from kubetape.errors import CaptureError

    snapshot = take(
        SnapshotOptions(
            node=node,
            use_api=from_dir is None,
            from_dir=from_dir,
            kubeconfig=kubeconfig,
            context=context,
            kubelet=kubelet,
            runtime_root=(host_root() or "/") if node else None,
        )
    )
    if snapshot.is_empty:
        raise CaptureError("nothing to write: " + ("; ".join(snapshot.notes) or "no source gave any object"))
    write_snapshot(output, snapshot, node or "cluster")
    for note in snapshot.notes:
        click.echo(f"note: {note}", err=True)
    if sys.stdout.isatty():
        counts = {name: len(rows) for name, rows in snapshot.rows.items() if rows}
        click.echo(f"{output}: " + ", ".join(f"{count} {name}" for name, count in sorted(counts.items())))
    return 0
