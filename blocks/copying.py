"""One store copied into another, file by file: both have the same layout, so a copy is a store."""

from __future__ import annotations

from collections.abc import Callable
from typing import NamedTuple

from blocks.files import Found
from blocks.store import Store, file_digest
from dubbing.errors import BadSetting

_LEFT_OUT = ("scratch/", "claims/")  # work in hand
_AT_ONCE = 64  # files in one go


class Copied(NamedTuple):
    files: int
    bytes: int
    skipped: int  # there already
    damaged: tuple[str, ...]  # left out, since their content is not what their name says
    kept: tuple[str, ...]  # edits that differ in the target, and stay


def copy_store(origin: Store, target: Store, progress: Callable[[int, int], None] = lambda done, total: None) -> Copied:
    """Copy all that isn't there yet; again after a break it goes on where it was. Blobs go before the records that point at them.

    Every blob is hashed on its way, and every record's checksum is looked at: what is damaged is left out and named.

    Args:
        progress: called with bytes done and bytes in all.

    Raises:
        BadSetting: both are one, or one lies in the other, or there is nothing to copy.
        StoreFailed: one of the two can't be reached, or the target is full.
    """
    here, there_too = f"{origin.where}/", f"{target.where}/"
    if here.startswith(there_too) or there_too.startswith(here):
        raise BadSetting(f"store {origin.where}: can't be copied into itself")
    found = [one for one in origin.files.found("") if not one.name.startswith(_LEFT_OUT)]
    if not found:
        raise BadSetting(f"store {origin.where}: there is nothing there")
    found.sort(key=lambda one: (not one.name.startswith("blobs/"), one.name))
    there = {one.name: one for one in target.files.found("")}
    total, done = sum(one.size for one in found), 0
    files = copied_bytes = skipped = 0
    damaged: list[str] = []
    kept: list[str] = []
    for start in range(0, len(found), _AT_ONCE):
        batch = found[start : start + _AT_ONCE]
        outcomes = target.files.each(lambda one: _copy(origin, target, one, there.get(one.name)), batch)
        for one, outcome in zip(batch, outcomes, strict=True):
            done += one.size
            files += outcome == "copied"
            copied_bytes += one.size if outcome == "copied" else 0
            skipped += outcome == "there"
            if outcome == "damaged":
                damaged.append(one.name)
            if outcome == "kept":
                kept.append(one.name)
        progress(done, total)
    return Copied(files, copied_bytes, skipped, tuple(damaged), tuple(kept))


def _copy(origin: Store, target: Store, one: Found, there: Found | None) -> str:
    if not one.name.startswith("blobs/"):
        return _copy_record(origin, target, one, there)
    if there is not None and there.size == one.size:
        return "there"
    with target.scratch() as folder:
        path = folder / "blob"
        try:
            origin.files.download(one.name, path)
        except FileNotFoundError:
            return "damaged"
        if file_digest(path) != one.name.rpartition("/")[2]:
            return "damaged"
        target.files.upload(path, one.name)
    return "copied"


def _copy_record(origin: Store, target: Store, one: Found, there: Found | None) -> str:
    """Records are small. Of two that differ the newer stays; of two lessons' edits the target's, since no rerun brings them back."""
    try:
        content = origin.files.read(one.name)
    except FileNotFoundError:
        return "damaged"
    if not origin.is_whole_record(one.name, content):
        return "damaged"
    if there is not None:
        try:
            existing = target.files.read(one.name)
        except FileNotFoundError:
            existing = b""
        if existing == content:
            return "there"
        if target.is_whole_record(one.name, existing):
            if one.name.startswith("edits/"):
                return "kept"
            if there.modified >= one.modified:
                return "there"
    target.files.write(one.name, content)
    return "copied"
