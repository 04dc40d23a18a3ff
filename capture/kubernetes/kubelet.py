"""The pods a kubelet runs, from its own /pods: they are known even where the API server is not reachable."""

from __future__ import annotations

import json
import warnings
from typing import Any
from urllib.parse import urlsplit

from kubetape.errors import CaptureError

Json = dict[str, Any]

TOKEN_FILE = "/var/run/secrets/kubernetes.io/serviceaccount/token"
CA_FILE = "/var/run/secrets/kubernetes.io/serviceaccount/ca.crt"
TIMEOUT_S = 10.0


def pods(url: str, token: str | None = None) -> list[Json]:
    """The Pod objects of `URL/pods` (https://127.0.0.1:10250 or http://127.0.0.1:10255).

    The kubelet's certificate is often its own; it is checked except on the loopback address. token: the
    service account's where we run in a pod. Raises CaptureError with the reason.
    """
    import urllib3

    parts = urlsplit(url if "://" in url else f"https://{url}")
    local = parts.hostname in ("127.0.0.1", "::1", "localhost")
    if token is None:
        token = _read(TOKEN_FILE)
    headers = {"Accept": "application/json"}
    if token and parts.scheme == "https":
        headers["Authorization"] = f"Bearer {token}"
    options: dict[str, Any] = {}
    if parts.scheme == "https":
        options = {"cert_reqs": "CERT_NONE"} if local else {"cert_reqs": "CERT_REQUIRED"}
        if not local and _read(CA_FILE):
            options["ca_certs"] = CA_FILE
    path = parts.path.rstrip("/")
    address = f"{parts.scheme}://{parts.netloc}{path if path.endswith('/pods') else path + '/pods'}"
    try:
        with urllib3.PoolManager(**options) as pool, warnings.catch_warnings():
            warnings.simplefilter("ignore", urllib3.exceptions.InsecureRequestWarning)
            answer = pool.request("GET", address, headers=headers, timeout=TIMEOUT_S, retries=False)
    except urllib3.exceptions.HTTPError as error:
        raise CaptureError(f"kubelet {address}: {type(error).__name__}") from error
    if answer.status != 200:
        hint = "; grant get on nodes/proxy" if answer.status in (401, 403) else ""
        raise CaptureError(f"kubelet {address}: HTTP status {answer.status}{hint}")
    try:
        items = json.loads(answer.data).get("items") or []
    except (ValueError, AttributeError) as error:
        raise CaptureError(f"kubelet {address}: its answer is not a list of pods") from error
    for item in items:
        item.setdefault("kind", "Pod")
        item.setdefault("apiVersion", "v1")
    return list(items)


def _read(path: str) -> str | None:
    try:
        with open(path, encoding="ascii") as file:
            return file.read().strip()
    except (OSError, UnicodeDecodeError):
        return None
