"""The command line: a click group that imports a command's module only when that command runs.

Each command lives in `kubetape/commands/`: options, one call, an exit status.
"""

from __future__ import annotations

import importlib
import os
import sys

import click

import kubetape
from kubetape.errors import KubetapeError

# Name -> (module below kubetape.commands, one line of help). The help stands here so that
# `kubetape --help` imports nothing. Keep this table in the order a user meets the commands.
COMMANDS: dict[str, tuple[str, str]] = {
    "doctor": ("doctor", "What this node can record, and why not."),
    "record": ("record", "Record this node into a bundle."),
    "cluster": ("cluster", "Record many nodes through the Kubernetes API, into one bundle."),
    "snapshot": ("snapshot", "Kubernetes metadata only, into a bundle."),
    "import": ("import_", "Make a bundle from captures of other tools."),
    "merge": ("merge", "Several bundles into one, clocks aligned."),
    "recover": ("recover", "A bundle from the spool of a recorder that was killed."),
    "redact": ("redact", "A copy of a bundle without what must not leave."),
    "verify": ("verify", "Check every byte of a bundle against its manifest."),
    "info": ("info", "What a bundle holds, and what it does not."),
    "analyze": ("analyze", "Rebuild what happened and write the report."),
    "sql": ("sql", "Ask a bundle with SQL."),
    "compare": ("compare", "Compare two bundles; the exit status is the verdict."),
    "export": ("export", "Hand a bundle to other tools."),
    "explain": ("explain", "The page of a finding's rule."),
}


class LazyGroup(click.Group):
    """A group whose commands are modules, imported on use (shape: click's own documentation, LazyGroup)."""

    def list_commands(self, ctx: click.Context) -> list[str]:
        return [name for name in COMMANDS if _module_exists(COMMANDS[name][0])]

    def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command | None:
        if cmd_name not in COMMANDS or not _module_exists(COMMANDS[cmd_name][0]):
            return None
        module = importlib.import_module(f"kubetape.commands.{COMMANDS[cmd_name][0]}")
        command: click.Command = module.command
        return command

    def format_commands(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        if names := self.list_commands(ctx):
            with formatter.section("Commands"):
                formatter.write_dl([(name, COMMANDS[name][1]) for name in names])


def _module_exists(name: str) -> bool:
    return os.path.exists(os.path.join(os.path.dirname(__file__), "commands", name + ".py"))


@click.group(cls=LazyGroup, context_settings={"help_option_names": ["-h", "--help"]})
@click.version_option(kubetape.__version__, prog_name="kubetape")
def cli() -> None:
    """A flight recorder for Kubernetes: record now, attach one file, explain anywhere."""


def main() -> None:
    """Run the command line. Every KubetapeError ends in one line on standard error and its exit status."""
    try:
        # Not standalone: a command's return value (or the code given to ctx.exit) is the exit status.
        status = cli.main(standalone_mode=False, prog_name="kubetape")
        sys.exit(status if isinstance(status, int) else 0)
    except KubetapeError as error:
        print(f"kubetape: {error}", file=sys.stderr)
        sys.exit(error.exit_status)
    except click.ClickException as error:
        error.show()
        sys.exit(2)
    except click.Abort:
        print("kubetape: interrupted", file=sys.stderr)
        sys.exit(130)
    except BrokenPipeError:
        # The reader of our output is gone (`kubetape sql ... | head`): not an error worth a traceback.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        sys.exit(141)
