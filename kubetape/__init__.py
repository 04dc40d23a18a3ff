"""kubetape: a flight recorder for Kubernetes.

Packages: `bundle` is the file both sides know, `capture` records (needs Linux, root and bcc), `analyze`
rebuilds what happened (needs none of them), `reports` draws it.
"""

__version__ = "0.1.0"
