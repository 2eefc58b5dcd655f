"""How a cache key is made.

Rules, so that two different computations never share a key:

1. A key is the SHA-256 of one canonical text. Nothing else goes in: no path, no run, no time.
2. Every value is written with its kind before it (`["str", …]`, `["list", …]`), so that values of two kinds can't collide: "1" is not 1,
   1 is not 1.0 and not True, an empty list is not an empty mapping, None is not "None".
3. Mappings are written with their keys sorted. Floats are written in full (`repr`), whatever subclass they are of (numpy's). NaN is
   refused: it equals nothing.
4. A file is its content: an `Artifact` counts by digest, never by where it lies.
5. An engine counts by its fingerprint: class, settings, weights' digests, package versions.
6. A noun is its class name and all its fields. One that the class declares `counted_if_set` is left out while it is None: the field came
   later, and what was stored before is still right.
7. A value of any other kind is refused. A false miss is cheap, a false hit is a defect: nothing is ever guessed (no `str()`, no pickle).
"""

from __future__ import annotations

import hashlib
import json
import math
from collections.abc import Iterator, Mapping
from typing import Any, Protocol, runtime_checkable

from dubbing.lesson import Artifact, Noun

LONGEST_SHOWN = 300  # characters of a text that a description holds as it is


@runtime_checkable
class Fingerprinted(Protocol):
    """Anything that states in plain values what shapes its output: engines."""

    def fingerprint(self) -> dict[str, Any]: ...


def digest(*values: Any) -> str:
    """Hex SHA-256 over the canonical form of the values.

    >>> digest("a", 1) == digest("a", 1), digest("a", 1) == digest("a", 1.0), digest("ab") == digest("a", "b")
    (True, False, False)

    Raises:
        TypeError: a value of a kind that has no canonical form.
    """
    # Not as ASCII: JSON escapes write two lone surrogates and the character they would make up alike.
    text = json.dumps(canonical(values), ensure_ascii=False, separators=(",", ":"))
    return hashlib.sha256(text.encode("utf-8", "surrogatepass")).hexdigest()


def digest_of(value: Any) -> str:
    """`digest` of one value. A noun's is remembered for a while: a transcript is an input of many stages."""
    if not isinstance(value, Noun):
        return digest(value)
    known = _digests.get(id(value))
    if known is None or known[0] is not value:
        known = _digests[id(value)] = value, digest(value)
        if len(_digests) > _REMEMBERED:
            _digests.pop(next(iter(_digests)), None)
    return known[1]


_REMEMBERED = 50  # nouns
_digests: dict[int, tuple[Noun, str]] = {}  # by identity: the noun is kept with it, so that no other takes its place


def described(value: Any) -> dict[str, Any]:
    """The value as a few plain words, by which two keys can be compared: an engine by each of its settings, weights and packages, text and
    numbers as they are, everything else by a digest.

    >>> described("en"), described((1, 2))
    ({'': 'en'}, {'': '#37208d3944ab'})
    """
    if isinstance(value, Fingerprinted):
        return dict(_leaves("", value.fingerprint()))
    if value is None or isinstance(value, bool | int | float) or (isinstance(value, str) and len(value) <= LONGEST_SHOWN):
        return {"": value}
    return {"": f"#{digest_of(value)[:12]}"}


def _leaves(name: str, value: Any) -> Iterator[tuple[str, Any]]:
    if isinstance(value, dict):
        for part in value:
            yield from _leaves(f"{name}.{part}" if name else str(part), value[part])
    else:
        yield name, value


def canonical(value: Any) -> list[Any]:
    """`value` as nested JSON lists, each starting with its kind."""
    match value:
        case None:
            return ["none"]
        case bool():
            return ["bool", value]
        case int():
            return ["int", value]
        case float():
            if math.isnan(value):
                raise TypeError("NaN has no place in a cache key")
            return ["float", float.__repr__(value)]
        case str():
            return ["str", value]
        case Artifact():
            return ["file", value.sha256, value.media_type]
        case Noun():
            fields = {name: getattr(value, name) for name in sorted(type(value).model_fields)}
            counted = {name: canonical(v) for name, v in fields.items() if not (v is None and name in value.counted_if_set)}
            return ["noun", type(value).__name__, counted]
        case list() | tuple():
            return ["list", *(canonical(item) for item in value)]
        case Mapping():
            if not all(isinstance(key, str) for key in value):
                raise TypeError("a mapping in a cache key needs text keys")
            return ["map", {key: canonical(value[key]) for key in sorted(value)}]
    if isinstance(value, Fingerprinted):
        return ["engine", canonical(value.fingerprint())]
    raise TypeError(f"{type(value).__name__} has no canonical form for a cache key")
