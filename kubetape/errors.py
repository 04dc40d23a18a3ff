"""The errors kubetape raises on purpose; `kubetape.cli.main` turns each into one line and an exit status."""


class KubetapeError(Exception):
    """Something a user can act on. The message is one clear line that says what to do.

    exit_status: 2 for wrong use or unusable input, 1 for "no" as an answer, 3 for "cannot tell".
    """

    exit_status = 2


class BundleError(KubetapeError):
    """The file is not a bundle, is damaged, or was written by a version this one cannot read."""


class CaptureError(KubetapeError):
    """Recording could not start or had to stop; what was recorded before is kept."""


class QueryError(KubetapeError):
    """The SQL text given by the user was refused by DuckDB."""


class ImportFileError(KubetapeError):
    """A foreign capture file (pcap, pcapng, Kubernetes objects) could not be read."""
