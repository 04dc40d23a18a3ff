"""python -m tests.lab: the shop by hand, and the demo."""

from __future__ import annotations

import argparse
import signal
import sys
import time
from pathlib import Path

from tests.lab import demo, diagnose, ship, skew
from tests.lab.errors import LabError
from tests.lab.faults import FAULTS, named
from tests.lab.loads import LOADS
from tests.lab.shop import Shop, is_abandoned, remove_by_state, states


def up(options: argparse.Namespace) -> None:
    started = time.monotonic()
    shop = Shop(rate=options.rate, kept=True)
    try:
        shop.start()
        for fault in named(options.faults):
            shop.apply(fault)
    except BaseException:
        shop.stop()
        raise
    shop.release()
    print(f"shop {shop.lab_id} is up after {time.monotonic() - started:.1f} s")
    print(f"  gateway http://{shop.one('gateway').ip}/products/1   objects {shop.k8s}   logs {shop.folder}")
    for pod in shop.pods.values():
        print(f"  {pod.namespace}/{pod.name:<34} {pod.ip}")


def down(options: argparse.Namespace) -> None:
    for state in states():
        if options.lab in (None, state.lab_id):
            remove_by_state(state)
            print(f"shop {state.lab_id} is gone")


def clean(options: argparse.Namespace) -> None:
    for state in states():
        if options.all or is_abandoned(state):
            remove_by_state(state)
            print(f"shop {state.lab_id} is gone")


def status(_options: argparse.Namespace) -> None:
    for state in states():
        kind = "left behind" if is_abandoned(state) else "up"
        print(f"shop {state.lab_id}  {kind}  {state.subnet}  faults: {', '.join(state.faults) or 'none'}")


def run(options: argparse.Namespace) -> None:
    demo.record_shop(Path(options.output), named(options.faults), options.duration, options.rate)
    print(f"recorded {options.output}")


def run_demo(options: argparse.Namespace) -> None:
    demo.demo(Path(options.output), options.duration)


def run_diagnose(options: argparse.Namespace) -> None:
    folder = Path(options.output)
    cases = [tuple(named(names)) for names in options.faults if names != skew.NAME]
    if not options.faults:
        cases = diagnose.singles()
    results = [diagnose.run(case, options.duration, options.rate, folder) for case in cases]
    if not options.faults or skew.NAME in options.faults:
        results.append(skew.run(folder))
    print("\n" + diagnose.table(results))
    Path(options.output, "diagnosis.md").write_text(diagnose.table(results))


def run_judge(options: argparse.Namespace) -> None:
    bundles = sorted(Path(options.folder).glob("*.ktape"))
    results = [diagnose.judge_again(bundle) for bundle in bundles if diagnose.answers_file(bundle).exists()]
    print("\n" + diagnose.table(results))


def run_healthy(options: argparse.Namespace) -> None:
    if unknown := [name for name in options.loads if name not in LOADS]:
        raise LabError(f"no load called {', '.join(unknown)}; there are: {', '.join(LOADS)}")
    results = [diagnose.run_healthy(LOADS[name], Path(options.output)) for name in options.loads or LOADS]
    print("\n" + diagnose.table(results))
    Path(options.output, "healthy.md").write_text(diagnose.table(results))


def run_ship(_options: argparse.Namespace) -> None:
    ship.ship()
    print(f"wrote {demo.SHIPPED}")


def main() -> int:
    """Parse the command line and run; the exit status."""
    parser = argparse.ArgumentParser(prog="python -m tests.lab", description=__doc__)
    commands = parser.add_subparsers(required=True)

    def command(name: str, function: object, help_text: str) -> argparse.ArgumentParser:
        sub = commands.add_parser(name, help=help_text)
        sub.set_defaults(function=function)
        return sub

    faults_help = f"comma-separated: {', '.join(FAULTS)}"
    sub = command("up", up, "start a shop and leave it running")
    sub.add_argument("--faults", default="", help=faults_help)
    sub.add_argument("--rate", type=float, default=30.0, help="requests per second")
    sub = command("down", down, "take down shops, one or all")
    sub.add_argument("lab", nargs="?")
    sub = command("clean", clean, "take away what killed labs left behind")
    sub.add_argument("--all", action="store_true", help="those that were meant to stay, too")
    command("status", status, "which shops there are")
    sub = command("run", run, "start a shop, record it, take it down")
    sub.add_argument("--faults", default="", help=faults_help)
    sub.add_argument("--rate", type=float, default=30.0, help="requests per second")
    sub.add_argument("--duration", type=float, default=20.0, help="seconds")
    sub.add_argument("-o", "--output", required=True, help="the bundle")
    sub = command("demo", run_demo, "a shop with three faults, recorded and explained")
    sub.add_argument("--duration", type=float, default=20.0, help="seconds")
    sub.add_argument("-o", "--output", default="out", help="folder for the bundle and the report")
    sub = command(
        "diagnose", run_diagnose, "each fault by itself, recorded and analyzed blind; a table of the findings"
    )
    sub.add_argument(
        "faults", nargs="*", help=f"cases, each a comma-separated list of faults, or {skew.NAME}; none: all"
    )
    sub.add_argument("--rate", type=float, default=40.0, help="requests per second")
    sub.add_argument("--duration", type=float, default=15.0, help="seconds")
    sub.add_argument("-o", "--output", default="out/diagnose", help="folder for the bundles and the table")
    sub = command("judge", run_judge, "bundles of `diagnose` and `healthy`, analyzed again: after a rule has changed")
    sub.add_argument("folder", nargs="?", default="out/diagnose")
    sub = command("healthy", run_healthy, "a shop without faults under each load, recorded and analyzed")
    sub.add_argument("loads", nargs="*", help=f"of {', '.join(LOADS)}; none: all")
    sub.add_argument("-o", "--output", default="out/diagnose", help="folder for the bundles and the table")
    command("ship", run_ship, "record the bundle that comes with kubetape")
    options = parser.parse_args()
    # SIGTERM must unwind the stack as an interrupt does, so that the shop is taken down.
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(143))
    try:
        options.function(options)
    except LabError as error:
        print(f"lab: {error}", file=sys.stderr)
        return 2
    except KeyboardInterrupt:
        return 130
    return 0


if __name__ == "__main__":
    sys.exit(main())
