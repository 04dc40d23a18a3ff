"""A command in a container of a pod, over the API server's WebSocket.

Source: k8s.io/apimachinery/pkg/util/remotecommand (channels 1 stdout, 2 stderr, 3 the result as Status).
"""

from __future__ import annotations

import json
import ssl
from collections.abc import Callable, Sequence
from typing import Any
from urllib.parse import urlencode

from kubetape.capture.kubernetes.api import Api, ApiError

_STDOUT, _STDERR, _RESULT = 1, 2, 3
_PROTOCOL = "v4.channel.k8s.io"
TIMEOUT_S = 30.0
_STDERR_MAX = 4096


def execute(
    api: Api, namespace: str, pod: str, command: Sequence[str], output: Callable[[bytes], Any] | None = None
) -> None:
    """Run `command` and give its standard output piece by piece to `output`.

    Raises ApiError where it could not run, failed, or the connection ended before its result came.
    """
    import websocket

    query = [("command", word) for word in command] + [("stdout", "1"), ("stderr", "1")]
    address = f"{api.base.replace('http', 'ws', 1)}/api/v1/namespaces/{namespace}/pods/{pod}/exec?{urlencode(query)}"
    headers = {k: v for k, v in api.headers().items() if k != "Accept"}
    connection = None
    try:
        connection = websocket.create_connection(
            address,
            timeout=TIMEOUT_S,
            header=headers,
            subprotocols=[_PROTOCOL],
            sslopt=_tls(api),
            enable_multithread=False,
        )
        _read(connection, output)
    except websocket.WebSocketBadStatusException as error:
        raise ApiError(error.status_code, f"exec in {pod}: HTTP status {error.status_code}") from error
    except (websocket.WebSocketException, OSError) as error:
        raise ApiError(0, f"exec in {pod}: {error}") from error
    finally:
        if connection is not None:
            connection.close()


def _read(connection: Any, output: Callable[[bytes], Any] | None) -> None:
    errors = b""
    while True:
        frame = connection.recv()
        if not frame:
            raise ApiError(0, "the connection ended before the command did")
        data = frame if isinstance(frame, bytes) else frame.encode()
        channel, content = data[0], data[1:]
        if channel == _STDOUT and output is not None:
            output(content)
        elif channel == _STDERR:
            errors = (errors + content)[-_STDERR_MAX:]
        elif channel == _RESULT:
            status = json.loads(content)
            if status.get("status") != "Success":
                text = errors.decode(errors="replace").strip() or status.get("message") or "failed"
                raise ApiError(500, text.splitlines()[-1])
            return


def _tls(api: Api) -> dict[str, Any]:
    settings = api.settings
    if not api.base.startswith("https"):
        return {}
    options: dict[str, Any] = {"cert_reqs": ssl.CERT_REQUIRED if settings.verify_ssl else ssl.CERT_NONE}
    if settings.ssl_ca_cert:
        options["ca_certs"] = settings.ssl_ca_cert
    if settings.cert_file:
        options["certfile"], options["keyfile"] = settings.cert_file, settings.key_file
    if settings.verify_ssl and settings.assert_hostname is False:
        options["check_hostname"] = False
    return options
