"""The services beside us: how their addresses are given, and what is no address.

An address goes into keys, reports and error messages. So no name, password or key may be in one; and no refusal repeats what it refuses.
"""

from __future__ import annotations

import ipaddress
import os
from urllib.parse import urlsplit

CHATTERBOX = "http://127.0.0.1:8001"
OLLAMA_PORT = 11434
OLLAMA_MODEL = "qwen2.5:14b"


def plain_address(name: str, address: str) -> str:
    """An http or https address without a slash at its end.

    >>> plain_address("address", "https://gpu.example:8001/speech/")
    'https://gpu.example:8001/speech'

    Args:
        name: of the setting, for the refusal.

    Raises:
        ValueError: it is none, or has more in it than that.
    """
    try:
        parts = urlsplit(address)
        whole = parts.scheme in ("http", "https") and bool(parts.hostname) and parts.port != 0
    except ValueError:  # brackets without an end, a port that is none
        whole = False
    if not whole or not address.isprintable() or " " in address:
        raise ValueError(f"{name}: an http or https address is expected") from None
    if "@" in parts.netloc or "?" in address or "#" in address:
        raise ValueError(f"{name}: no name, password, query or fragment may be in an address")
    return address.rstrip("/")


def ollama_address(host: str = "") -> str:
    """Of an Ollama server, given as Ollama itself takes it.

    >>> ollama_address("gpu"), ollama_address("0.0.0.0:5000"), ollama_address("https://gpu.example/")
    ('http://gpu:11434', 'http://127.0.0.1:5000', 'https://gpu.example')

    Args:
        host: empty for OLLAMA_HOST, else this machine. What a server listens at everywhere (0.0.0.0) is asked on this machine.

    Raises:
        ValueError
    """
    given = (host or os.environ.get("OLLAMA_HOST", "")).strip()
    name = "host" if host else "OLLAMA_HOST"
    if "://" in given:
        address = plain_address(name, given)
    else:
        if given.count(":") > 1 and not given.startswith("["):
            given = f"[{given}]"
        if given.startswith(":"):
            given = f"127.0.0.1{given}"
        address = plain_address(name, f"http://{given or '127.0.0.1'}")
        if urlsplit(address).port is None:
            place, slash, path = address.removeprefix("http://").partition("/")
            address = f"http://{place.rstrip(':')}:{OLLAMA_PORT}{slash}{path}"
    parts = urlsplit(address)
    try:
        everywhere = ipaddress.ip_address(parts.hostname or "").is_unspecified
    except ValueError:  # a name
        everywhere = False
    if everywhere:
        here = "[::1]" if ":" in (parts.hostname or "") else "127.0.0.1"
        address = parts._replace(netloc=here if parts.port is None else f"{here}:{parts.port}").geturl()
    return address


def ollama_tag(model: str) -> str:
    """A model's name as Ollama lists it.

    >>> ollama_tag("mistral"), ollama_tag("registry:5000/mistral"), ollama_tag("qwen2.5:14b")
    ('mistral:latest', 'registry:5000/mistral:latest', 'qwen2.5:14b')
    """
    return model if ":" in model.rpartition("/")[2] else f"{model}:latest"
