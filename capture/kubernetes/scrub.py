"""What leaves a Kubernetes object before it is kept: everything that may be a secret.

Strategy: fields that hold values by design (env, last-applied-configuration, managed fields) are removed
whatever they contain. Free text that people put secrets into (commands, arguments, annotations, messages)
is kept, with what looks like a secret masked: by the name in front of it (`--password x`, `TOKEN=x`), by
the word's own form (a JWT, an access key, credentials in a URL). Objects of kinds we do not know are cut to the
few fields the tables need. It is better to mask a harmless word than to keep a password.
"""

from __future__ import annotations

import re
from functools import lru_cache
from typing import Any

Json = dict[str, Any]

MASK = "(masked)"
ANNOTATION_MAX_CHARS = 1024  # longer ones are whole configurations
_DROPPED_ANNOTATIONS = (
    "kubectl.kubernetes.io/last-applied-configuration",
    "objectset.rio.cattle.io/applied",
    "banzaicloud.com/last-applied",
)

_NAMES = (
    r"pass(?:word|wd|phrase)?|pwd|secret|token|credentials?|auth(?:orization)?|bearer|cookie|session[_-]?id|"
    r"api[_-]?key|access[_-]?key|account[_-]?key|master[_-]?key|private[_-]?key|signing[_-]?key|encryption[_-]?key|license[_-]?key|sas|dsn|"
    r"connection[_-]?string|htpasswd|salt"
)
_NAME_ENDS = re.compile(rf"(?:^|.*[^a-z]|.*(?=[A-Z]))(?:{_NAMES})(?:[_-]?(?:value|data|b64|base64))?$", re.IGNORECASE)
# A name that ends in one of the words, `=` or `:`, and the value up to a blank, quote or separator.
_ASSIGNED = re.compile(
    rf"(?P<name>[\w.-]*(?:{_NAMES})[\w-]*\\?[\"']?\s*(?:=>|[=:])\s*)(?P<value>\\?\"[^\"]*\"|'[^']*'|[^\s\"',;&|)}}]+)",
    re.IGNORECASE,
)
# `--password x` and `-password x` inside one string.
_OPTION = re.compile(
    rf"(?P<name>(?<!\w)--?[\w-]*(?:{_NAMES})[\w-]*\s+)(?P<value>\"[^\"]*\"|'[^']*'|(?!-)\S+)", re.IGNORECASE
)
_BEARER = re.compile(r"\b(?P<name>Bearer|Basic|Digest|Negotiate)\s+(?P<value>[A-Za-z0-9+/=._~-]{6,})", re.IGNORECASE)
_URL_USER = re.compile(r"(?P<name>[a-z][a-z0-9+.-]*://)(?P<value>[^/\s\"']+)@", re.IGNORECASE)
_DSN_USER = re.compile(r"(?P<name>\b[\w.-]+:)(?P<value>[^\s:@/\"']+)@(?=(?:tcp|unix|udp)\()")
_MYSQL_P = re.compile(r"(?P<name>(?:^|\s)-p)(?P<value>[^\s\"'-]\S*)")
_CURL_USER = re.compile(r"(?P<name>(?:^|\s)(?:-u|--user)[ =]?[\"']?[\w.@-]+:)(?P<value>[^\s\"']+)")
_SHAPES = re.compile(
    r"eyJ[A-Za-z0-9_-]{8,}\.[A-Za-z0-9_-]{4,}(?:\.[A-Za-z0-9_-]*)?"  # JWT
    r"|\b(?:AKIA|ASIA)[0-9A-Z]{16}\b"  # AWS access key id
    r"|\bgh[pousr]_[A-Za-z0-9]{20,}|\bgithub_pat_\w{20,}|\bglpat-[\w-]{16,}"
    r"|\bxox[abprs]-[\w-]{10,}|\bsk[-_](?:live|test|proj|ant)?[-_]?[A-Za-z0-9_-]{16,}"
    r"|\bAIza[\w-]{30,}|\bya29\.[\w-]{20,}|\bhvs\.[\w-]{20,}|\bnpm_[A-Za-z0-9]{30,}|\bdop_v1_[a-f0-9]{40,}"
    r"|-----BEGIN [A-Z ]*PRIVATE KEY-----.*?(?:-----END [A-Z ]*PRIVATE KEY-----|$)",
    re.DOTALL,
)
# A long word of mixed letters and digits is a key more often than not; ids of hex digits are not.
_RANDOM_WORD = re.compile(
    r"(?<![\w/+.@:-])(?=[A-Za-z0-9+/_-]*[0-9])(?=[A-Za-z0-9+/_-]*[A-Z])(?=[A-Za-z0-9+/_-]*[a-z])"
    r"[A-Za-z0-9+_-]{32,}={0,2}(?![\w./:-])"
)
# Words whose presence makes the slow patterns worth running.
_SUSPICIOUS = re.compile(
    rf"{_NAMES}|://|bearer|basic |-p|-u|eyJ|AKIA|ASIA|gh[pousr]_|_pat_|glpat|xox|sk[-_]|AIza|ya29|hvs\.|npm_|dop_"
    r"|PRIVATE KEY",
    re.IGNORECASE,
)

# Names in Kubernetes objects that end like a secret and are references, never values.
_REFERENCES = {
    "secretName",
    "secret",
    "tokenSecretName",
    "serviceAccountToken",
    "automountServiceAccountToken",
    "secretRef",
    "secretKeyRef",
    "imagePullSecrets",
    "nodePublishSecretRef",
    "tokenExpirationSeconds",
    "continue",
}
# What `-p` takes when it means a port: a number or an address with one.
_PORT = re.compile(r"(?:[\w.\[\]:-]*:)?\d{1,5}(?:-\d{1,5})?$")
_COMMAND_FIELDS = {"command", "args"}


@lru_cache(maxsize=4096)
def _names_a_secret(name: str) -> bool:
    return bool(_NAME_ENDS.match(name))


@lru_cache(maxsize=8192)  # the same images, paths and messages stand in thousands of pods
def scrub_text(text: str) -> str:
    """`text` with what looks like a secret masked."""
    if not _SUSPICIOUS.search(text):
        return _mask_random(text)
    text = _SHAPES.sub(MASK, text)
    text = _URL_USER.sub(rf"\g<name>{MASK}@", text)
    text = _DSN_USER.sub(rf"\g<name>{MASK}@", text)
    text = _BEARER.sub(rf"\g<name> {MASK}", text)
    text = _ASSIGNED.sub(_keep_reference, text)
    text = _OPTION.sub(rf"\g<name>{MASK}", text)
    text = _CURL_USER.sub(rf"\g<name>{MASK}", text)
    return _mask_random(text)


def _keep_reference(match: re.Match[str]) -> str:
    value = match["value"]
    # `$(DB_PASSWORD)` and `${DB_PASSWORD}` name a variable; they are not its value.
    if value.strip("\"'\\").startswith(("$", "(masked)")):
        return match[0]
    return f"{match['name']}{MASK}"


def _mask_random(text: str) -> str:
    return _RANDOM_WORD.sub(MASK, text) if len(text) >= 32 else text


def scrub_command(words: list[Any]) -> list[Any]:
    """A command line: also the word after `--password`, and mysql's `-pWORD`."""
    scrubbed: list[Any] = []
    hide_next = False
    for word in words:
        if not isinstance(word, str):
            scrubbed.append(word)
            continue
        if hide_next and not word.startswith(("-", "$(")) and not _PORT.match(word):
            scrubbed.append(MASK)
            hide_next = False
            continue
        name = word.lstrip("-")
        hide_next = word.startswith("-") and "=" not in word and (_names_a_secret(name) or word in ("-p", "-a"))
        scrubbed.append(scrub_text(_MYSQL_P.sub(rf"\g<name>{MASK}", word) if _is_password_word(word) else word))
    return scrubbed


def _is_password_word(word: str) -> bool:
    """`-pSECRET`: -p and more that is neither a number (a port) nor an option with a dash; or a shell line
    with a client that takes it so."""
    if " " in word:
        return bool(re.search(r"\b(?:mysql|mariadb|mysqldump|mysqladmin|sshpass|redis-cli)\b", word))
    return (
        word.startswith("-p") and len(word) > 2 and not word[2:].isdigit() and not re.match(r"-p[a-z]+([=-]|$)", word)
    )


def scrub(obj: Json, known_kind: bool = True) -> Json:
    """A copy of a Kubernetes object that may be kept. known_kind: False cuts it to what the tables use."""
    if not known_kind:
        obj = _cut(obj)
    cleaned = _walk(obj)
    metadata = cleaned.get("metadata")
    if isinstance(metadata, dict):
        metadata.pop("managedFields", None)
        annotations = metadata.get("annotations")
        if isinstance(annotations, dict):
            metadata["annotations"] = _annotations(annotations)
    return cleaned


def _annotations(annotations: Json) -> Json:
    kept: Json = {}
    for key, value in annotations.items():
        if key in _DROPPED_ANNOTATIONS or "last-applied" in key:
            continue
        text = str(value)
        if len(text) > ANNOTATION_MAX_CHARS:
            kept[key] = f"(removed: {len(text)} characters)"
        elif _names_a_secret(key.rpartition("/")[2]):
            kept[key] = MASK
        else:
            kept[key] = scrub_text(text)
    return kept


def _walk(value: Any, key: str = "") -> Any:
    if isinstance(value, dict):
        return {k: _entry(k, v) for k, v in value.items() if k != "managedFields"}
    if isinstance(value, list):
        return [_walk(item, key) for item in value]
    if isinstance(value, str):
        return scrub_text(value)
    return value


def _entry(key: str, value: Any) -> Any:
    if key == "env" and isinstance(value, list):
        return [_env(item) for item in value]
    if key in _COMMAND_FIELDS and isinstance(value, list):
        return scrub_command(value)
    if key == "annotations" and isinstance(value, dict):
        return _annotations(value)
    if key == "httpHeaders" and isinstance(value, list):
        return [{"name": h.get("name")} for h in value if isinstance(h, dict)]
    if key in ("data", "stringData", "binaryData") and isinstance(value, dict):
        return dict.fromkeys(value, MASK)
    if key in _HARMLESS and isinstance(value, str):
        return value
    if isinstance(value, str) and key not in _REFERENCES and value and _names_a_secret(key):
        return MASK
    return _walk(value, key)


# Written by the system in a fixed form: ids and names, which are never secrets and cost time to look at.
_HARMLESS = {
    "uid",
    "name",
    "namespace",
    "kind",
    "apiVersion",
    "resourceVersion",
    "creationTimestamp",
    "lastTransitionTime",
    "startedAt",
    "finishedAt",
    "containerID",
    "imageID",
    "nodeName",
    "hostIP",
    "podIP",
    "ip",
    "type",
    "status",
    "mountPath",
    "generateName",
    "protocol",
    "phase",
}


def _env(item: Any) -> Any:
    """The variable's name and where it comes from; never its value."""
    if not isinstance(item, dict):
        return None
    return {k: v for k, v in item.items() if k in ("name", "valueFrom")}


_SPEC_KEPT = ("replicas", "selector", "paused", "suspend", "strategy", "template", "schedule", "workloadRef")
_STATUS_KEPT = (
    "replicas",
    "readyReplicas",
    "availableReplicas",
    "updatedReplicas",
    "conditions",
    "phase",
    "observedGeneration",
)


def _cut(obj: Json) -> Json:
    """apiVersion, kind, metadata and the few fields that workload-like kinds share."""
    kept: Json = {k: obj[k] for k in ("apiVersion", "kind", "metadata") if k in obj}
    for part, names in (("spec", _SPEC_KEPT), ("status", _STATUS_KEPT)):
        found = obj.get(part)
        if isinstance(found, dict):
            kept[part] = {k: found[k] for k in names if k in found}
    return kept
