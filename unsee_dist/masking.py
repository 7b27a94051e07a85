"""What is not for others in a text that leaves the process: passwords and tokens, and for what is published, folders.

    masked("s3://me:pw@host/x?sig=1")     s3://***@host/x?sig=***          lines on a terminal, index.json, MLflow's addresses
    published("/home/me/data/x.tsv")      ~/data/x.tsv                     MLflow's parameters, a model card

A setting never holds a secret (config/sections.py refuses it); records of earlier versions are masked when they are read. Secrets
come from the environment: AWS_*, HF_TOKEN, MLFLOW_TRACKING_PASSWORD, or FSSPEC_<PROTOCOL> for any other store. An address in a
variable (MLFLOW_TRACKING_URI, HTTPS_PROXY) may hold some, too, which libraries repeat without the rest of the address.
"""

from __future__ import annotations

import json
import os
import re
from collections.abc import Iterator, Mapping
from pathlib import Path
from urllib.parse import parse_qsl, unquote, urlsplit

HIDDEN = "***"
# The last @ of a URL's server part; of a URL with a colon in it the last of all, since a password may hold a slash.
# With one slash: a URL that went through a Path.
USERINFO = re.compile(r"(:/{1,2})(?:[^\s/?#@]*:\S*|[^\s/?#@]+)@")
# What follows the path of a URL: https://host/x;jsessionid=1?sig=2#access_token=3
TAIL = re.compile(r"(?<=:/)([^\s?#;'\"<>,]+)([;?#][^\s'\"<>]+)")
VALUE = re.compile(r"(^|[&;])([^=&;]*=)?[^&;]+")  # of a query, with or without its name
NAMED = re.compile(r"(^|[&;])([^=&;/]*=)[^&;/]+")  # of a path or a fragment: a part of a page has no value
# A part that is no word: 16 characters or more, with a digit, a small and a capital letter.
KEY = re.compile(r"(?<![\w+/=-])(?=[^\s&;]*\d)(?=[^\s&;]*[a-z])(?=[^\s&;]*[A-Z])[\w+/=-]{16,}")
# Variables whose value is a secret, whatever program reads it.
SECRET = re.compile(
    r"(TOKEN|PASSWORD|PASSWD|SECRET|(SECRET_ACCESS|API|ACCOUNT|PRIVATE)_KEY|SAS|CONNECTION_STRING)$"
)
NAMES = re.compile(
    "token|pass|secret|key|auth|cookie|credential|sas|sig", re.IGNORECASE
)  # in JSON, in a query
STORE = "FSSPEC_"  # of a file system: one value, or JSON with several
SHORTEST = 6  # letters: a shorter value would be found in any text


def masked(text: str) -> str:
    """The text without userinfo and values of queries in its URLs, and without the secrets of the environment."""
    text = masked_urls(text)
    for secret in _secrets(os.environ):
        text = text.replace(secret, HIDDEN)
    return text


def has_secret(text: str) -> bool:
    """Whether a text holds a URL with userinfo, a query or another value."""
    return masked_urls(text) != text


def masked_urls(text: str) -> str:
    """The text without userinfo and values of queries, paths and fragments in its URLs."""
    if ":/" not in text:
        return text
    return TAIL.sub(_without_values, USERINFO.sub(rf"\1{HIDDEN}@", text))


def _without_values(url: re.Match[str]) -> str:
    path, hash_mark, fragment = url[2].partition("#")
    path, question_mark, query = path.partition("?")
    path, fragment = (KEY.sub(HIDDEN, NAMED.sub(_without_value, part)) for part in (path, fragment))
    return f"{url[1]}{path}{question_mark}{VALUE.sub(_without_value, query)}{hash_mark}{fragment}"


def _without_value(entry: re.Match[str]) -> str:
    return f"{entry[1]}{entry[2] or ''}{HIDDEN}"


def credentials(url: str) -> str:
    """Where the store of a URL takes its password from, in words."""
    protocol = re.split(r"[^a-z0-9]", url.partition("://")[0].lower())[-1]
    known = {
        "s3": "set AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY",
        "gs": "set GOOGLE_APPLICATION_CREDENTIALS",
        "hf": "set HF_TOKEN",
        **dict.fromkeys(
            ("http", "https"),
            'set FSSPEC_HTTP={"client_kwargs": {"headers": {"Authorization": "Bearer ..."}}}',
        ),
    }
    return known.get(
        protocol, f"set FSSPEC_{protocol.upper()}_USERNAME and FSSPEC_{protocol.upper()}_PASSWORD"
    )


def published(text: str) -> str:
    """`masked`, and the home folder as ~: for what is read on other machines."""
    home = str(Path.home())
    text = masked(text)
    return text if home == "/" else re.sub(rf"{re.escape(home)}(?![\w.-])", "~", text)


def _in_json(text: str) -> Iterator[str]:
    """The texts in JSON that are under a key which says that it is a secret: also without "Bearer" before them."""
    try:
        waiting: list[tuple[str, object]] = [("", json.loads(text))]
    except (ValueError, RecursionError):
        return
    while waiting:
        key, value = waiting.pop()
        if isinstance(value, dict):
            waiting += value.items()
        elif isinstance(value, list):
            waiting += ((key, each) for each in value)
        elif isinstance(value, str) and NAMES.search(key):
            yield value
            yield value.rpartition(" ")[2]


def _in_address(text: str) -> Iterator[str]:
    """The password of a URL, what stands alone before its @, and the values of its query that are named like secrets."""
    try:
        url = urlsplit(text)
        userinfo = url.netloc.rpartition("@")[0]
    except ValueError:
        return
    password = userinfo.partition(":")[2] or userinfo
    values = [value for name, value in parse_qsl(url.query) if NAMES.search(name)]
    raw = [each.partition("=")[2] for each in url.query.split("&") if NAMES.search(each.partition("=")[0])]
    yield from (password, unquote(password), *values, *raw)


def _secrets(variables: Mapping[str, str]) -> list[str]:
    """The longest first: one may hold another."""
    values = [value for name, value in variables.items() if SECRET.search(name)]
    for name, value in variables.items():
        if name.startswith(STORE):
            values += _in_json(value)
        if "://" in value:
            values += _in_address(value)
    secrets = {value for value in values if len(value) >= SHORTEST}
    return sorted((secret for secret in secrets if not os.path.exists(secret)), key=len, reverse=True)
