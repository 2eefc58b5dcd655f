"""Addresses of the services beside us."""

from __future__ import annotations

import pytest

from dubbing.services import ollama_address, plain_address


@pytest.mark.parametrize(
    ("given", "address"),
    {
        "": "http://127.0.0.1:11434",
        "gpu": "http://gpu:11434",
        "gpu/": "http://gpu:11434",
        "gpu/path": "http://gpu:11434/path",
        "gpu:5000": "http://gpu:5000",
        ":5000": "http://127.0.0.1:5000",
        "0.0.0.0": "http://127.0.0.1:11434",
        "0.0.0.0:5000": "http://127.0.0.1:5000",
        "http://0.0.0.0:5000": "http://127.0.0.1:5000",
        "::": "http://[::1]:11434",
        "::1": "http://[::1]:11434",
        "[::1]:5000": "http://[::1]:5000",
        "http://gpu:5000/": "http://gpu:5000",
        "https://gpu.example/ollama/": "https://gpu.example/ollama",
    }.items(),
)
def test_ollamas_address_is_what_ollama_takes_it_for(given: str, address: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("OLLAMA_HOST", raising=False)
    assert ollama_address(given) == address
    monkeypatch.setenv("OLLAMA_HOST", given)
    assert ollama_address() == address


WRONG = {
    "no scheme": "host:8001",
    "another scheme": "ftp://host/hunter2",
    "no host": "http://",
    "a port that is none": "http://host:99999/hunter2",
    "port zero": "http://host:0",
    "a bracket": "http://[host",
    "a line break": "http://host\n/",
    "a blank": "http://host /hunter2",
    "a password": "http://anna:hunter2@host",
    "a name": "http://hunter2@host",
    "an empty name": "http://@host",
    "a query": "http://host/?key=hunter2",
    "an empty query": "http://host/?",
    "a fragment": "http://host/#hunter2",
}


@pytest.mark.parametrize("address", WRONG.values(), ids=WRONG)
def test_what_is_no_address_or_holds_more_is_refused_and_not_repeated(address: str) -> None:
    with pytest.raises(ValueError, match=r"^address: [^\n]*$") as refused:
        plain_address("address", address)
    assert "hunter2" not in str(refused.value) and refused.value.__cause__ is None


@pytest.mark.parametrize("host", ["anna:hunter2@gpu", "http://anna:hunter2@gpu", "gpu:99999", "gpu?hunter2", "gpu:port", "a b"])
def test_ollamas_too(host: str, monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(ValueError, match=r"^host: ") as refused:
        ollama_address(host)
    monkeypatch.setenv("OLLAMA_HOST", host)
    with pytest.raises(ValueError, match=r"^OLLAMA_HOST: "):
        ollama_address()
    assert "hunter2" not in str(refused.value)
