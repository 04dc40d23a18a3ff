"""kubetape cluster: record many nodes through the Kubernetes API."""

from __future__ import annotations

import signal
from types import FrameType

import click

from kubetape.commands.record import Duration


@click.group("cluster", help="Record many nodes through the Kubernetes API, into one bundle.")
def command() -> None:
    pass


_API_OPTIONS = (
    click.option("--kubeconfig", type=click.Path(), help="Configuration file; default as kubectl's."),
    click.option("--context", help="Context of the configuration."),
    click.option("--namespace", default="kubetape", show_default=True, help="Namespace of the recorders' pods."),
)


@command.command("record", help="A privileged pod on every node chosen, all recording at once, all removed after.")
@click.option("-o", "--output", required=True, type=click.Path(dir_okay=False), help="The bundle to write.")
@click.option("--duration", type=Duration(), default="60s", show_default=True, help="How long all nodes record.")
@click.option("--node", "nodes", multiple=True, help="Only this node. May be repeated.")
@click.option("--selector", default="", help="Only nodes with these labels, as kubectl's -l.")
@click.option("--image", envvar="KUBETAPE_IMAGE", help="Image of the recorder (deploy/Containerfile).")
@click.option("--pull-secret", help="Secret in the namespace to pull the image with.")
@click.option("--cpu-limit", default="1", show_default=True, help="CPU limit of each recorder.")
@click.option("--memory-limit", default="1Gi", show_default=True, help="Memory limit of each recorder.")
@click.option("--start-timeout", type=Duration(), default="180s", show_default=True, help="Wait so long for a node.")
@_API_OPTIONS[0]
@_API_OPTIONS[1]
@_API_OPTIONS[2]
@click.argument("arguments", nargs=-1, type=click.UNPROCESSED, metavar="[-- RECORD OPTIONS]")
def record(
    output: str,
    duration: float,
    nodes: tuple[str, ...],
    selector: str,
    image: str | None,
    pull_secret: str | None,
    cpu_limit: str,
    memory_limit: str,
    start_timeout: float,
    kubeconfig: str | None,
    context: str | None,
    namespace: str,
    arguments: tuple[str, ...],
) -> int:
    from kubetape.capture.kubernetes.api import connect
    from kubetape.capture.kubernetes.cluster import ClusterOptions, ClusterRecording
    from kubetape.capture.kubernetes.manifests import DEFAULT_IMAGE, PodSettings

    pod = PodSettings(
        image=image or DEFAULT_IMAGE,
        namespace=namespace,
        cpu_limit=cpu_limit,
        memory_limit=memory_limit,
        pull_secret=pull_secret,
    )
    options = ClusterOptions(output, duration, nodes, selector, start_timeout, pod, arguments)

    def interrupt(number: int, frame: FrameType | None) -> None:
        raise KeyboardInterrupt

    # A recorder that is asked to end must clean up as after Ctrl-C.
    signal.signal(signal.SIGTERM, interrupt)
    recording = ClusterRecording(connect(kubeconfig, context), options, lambda text: click.echo(text, err=True))
    for note in recording.run():
        click.echo(f"note: {note}", err=True)
    click.echo(output)
    return 0


@command.command("clean", help="Remove what an interrupted `cluster record` left in the cluster.")
@_API_OPTIONS[0]
@_API_OPTIONS[1]
@_API_OPTIONS[2]
def clean_command(kubeconfig: str | None, context: str | None, namespace: str) -> int:
    from kubetape.capture.kubernetes.api import connect
    from kubetape.capture.kubernetes.cluster import clean

    click.echo(f"{clean(connect(kubeconfig, context), namespace)} recorders removed")
    return 0
