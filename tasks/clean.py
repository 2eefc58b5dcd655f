"""What may go from a store, and why: by age and kind, by lesson, down to a size.

A file's age is the time since it was written or since the last run that used it, whatever is later: runs say what they used
(`tasks.history`). So what a lesson still in use refers to never goes, however old it is. Everything that goes can be computed again; the
reviewers' edits can't, and only go with their lesson when that is asked for. A run that goes on meanwhile comes to no harm: what it misses
it makes again.
"""

from __future__ import annotations

import re
import time
from collections.abc import Callable, Iterable, Mapping
from typing import Any, NamedTuple

from blocks.files import Found
from blocks.store import Store, artifacts_in
from dubbing.errors import BadSetting
from dubbing.lesson import Artifact
from tasks.history import Run, read_runs

AUDIO_DAYS = 7.0
VIDEO_DAYS = 30.0
OTHER_DAYS = 30.0  # subtitles, pictures, records: small
GRACE = 3600.0  # seconds: what is younger may belong to a run that isn't finished
STALE = 86400.0  # seconds after which work in hand and claims belong to nobody
COPY = "copy"  # on this machine of what is in a bucket
_DAY = 86400.0
_BLOB = re.compile(r"blobs/[0-9a-f]{2}/[0-9a-f]{64}")
# What the store writes, and nothing else: a file of somebody's own is not ours to remove.
_OURS = re.compile(
    r"blobs/[0-9a-f]{2}/[0-9a-f]{64}|(records|lines)/\w+/v\d+/[0-9a-f]{64}|packs/([0-9a-f]{64}|none)/\w+/v\d+/[0-9a-f]{64}"
    r"|lessons/[0-9a-f]{64}/[0-9a-f]{24}|edits/[0-9a-f]{64}/[\w-]+|figures/\w+|claims/[0-9a-f]{32}/[0-9a-f]{32}|scratch/.+"
)


class Policy(NamedTuple):
    """What is to go. Days are since the last use."""

    audio_days: float = AUDIO_DAYS
    video_days: float = VIDEO_DAYS
    other_days: float = OTHER_DAYS
    size: int | None = None  # bytes that the store may have in the end; the lessons unused for longest go first
    lessons: frozenset[str] = frozenset()  # sha256 of recordings of which everything goes; then nothing goes by age
    with_edits: bool = False  # the edits of these lessons too
    keep: frozenset[str] = frozenset()  # sha256 of recordings of which nothing goes


class Removal(NamedTuple):
    """A file that goes."""

    name: str
    size: int  # bytes
    kind: str  # audio, video, other, record, edits, leftover, copy
    why: str


class _Use(NamedTuple):
    """A file with what is known of its use."""

    found: Found
    kind: str
    last: float  # seconds since 1970
    lessons: frozenset[str]  # that refer to it


def removals(store: Store, policy: Policy, now: float | None = None) -> list[Removal]:
    """What would go. Reads the whole listing and every run's records; changes nothing. Files that are not the store's own don't count.

    Args:
        now: seconds since 1970, by the clock of whoever keeps the files.

    Raises:
        BadSetting: there is no store.
        StoreFailed
    """
    now = time.time() if now is None else now
    files = []
    foreign = 0
    for found in store.files.found(""):
        if _OURS.fullmatch(found.name):
            files.append(found)
        else:
            foreign += 1
    if not any(not found.name.startswith("scratch/") for found in files):
        what = "other files, and nothing of a store's" if foreign else "nothing"
        raise BadSetting(f"store {store.where}: there is {what} there")
    uses = _uses(store, files)
    gone = [
        Removal(found.name, found.size, "leftover", "nobody's work in hand")
        for found in files
        if found.name.startswith(("scratch/", "claims/")) and now - found.modified > STALE
    ]
    if policy.lessons:
        gone += [
            Removal(use.found.name, use.found.size, use.kind, "of a lesson that goes")
            for use in uses
            if use.lessons and use.lessons <= policy.lessons - policy.keep and (use.kind != "edits" or policy.with_edits)
        ]
    else:
        days = {"audio": policy.audio_days, "video": policy.video_days}
        for use in uses:
            limit = days.get(use.kind, policy.other_days)
            if use.kind != "edits" and not use.lessons & policy.keep and now - use.last > max(limit * _DAY, GRACE):
                gone.append(Removal(use.found.name, use.found.size, use.kind, f"unused for more than {limit:g} days"))
    if store.working_files:
        gone += [
            Removal(found.name, found.size, COPY, f"on this machine for more than {policy.audio_days:g} days")
            for found in store.working_files.found("")
            if now - found.modified > max(policy.audio_days * _DAY, GRACE)
        ]
    if policy.size is not None:
        names = {removal.name for removal in gone if removal.kind != COPY}
        left = [use for use in uses if use.found.name not in names]
        gone += _down_to(left, policy.size, policy.keep, now)
    return gone


def remove(store: Store, removals: Iterable[Removal]) -> None:
    """Remove the files, records before what they point at.

    Raises:
        StoreFailed
    """
    copies = store.working_files

    def remove_one(removal: Removal) -> None:
        (copies if copies and removal.kind == COPY else store.files).remove(removal.name)

    ordered = sorted(removals, key=lambda removal: removal.kind not in ("record", "edits", "leftover"))
    for start in range(0, len(ordered), 100):
        store.files.each(remove_one, ordered[start : start + 100])


def by_kind(removals: Iterable[Removal]) -> list[dict[str, Any]]:
    """Files and bytes for each kind and reason."""
    rows: dict[tuple[str, str], dict[str, Any]] = {}
    for removal in removals:
        row = rows.setdefault((removal.kind, removal.why), {"kind": removal.kind, "why": removal.why, "files": 0, "bytes": 0})
        row["files"] += 1
        row["bytes"] += removal.size
    return [rows[key] for key in sorted(rows)]


def _down_to(uses: list[_Use], size: int, keep: frozenset[str], now: float) -> list[Removal]:
    """What goes until no more than `size` bytes are left: by last use, the big things that can be made again only."""
    total = sum(use.found.size for use in uses)
    gone = []
    for use in sorted((use for use in uses if use.kind in ("audio", "video", "other")), key=lambda use: (use.last, use.found.name)):
        if total <= size:
            break
        if not use.lessons & keep and now - use.last > GRACE:
            total -= use.found.size
            gone.append(Removal(use.found.name, use.found.size, use.kind, f"over {size / 1e6:g} MB, unused for longest"))
    return gone


def _uses(store: Store, files: Iterable[Found]) -> list[_Use]:
    """Each file of the store with its kind, its last use and the lessons that refer to it."""
    found_of = {found.name: found for found in files}
    last: dict[str, float] = {}
    lessons: dict[str, set[str]] = {}
    kinds: dict[str, str] = {}

    def used(name: str, lesson: str, at: float) -> None:
        last[name] = max(last.get(name, 0.0), at)
        lessons.setdefault(name, set()).add(lesson)

    run_names = [name for name in found_of if name.startswith("lessons/")]
    runs = read_runs(store, run_names)
    newest: dict[str, float] = {}
    for run in runs:
        newest[run.sha256] = max(newest.get(run.sha256, 0.0), run.started + run.seconds)
    record_names = [name for name in found_of if name.startswith("records/")]
    artifacts = dict(zip(record_names, store.files.each(lambda name: _pointed_at(store.read_result(name)), record_names), strict=True))
    for pointed in artifacts.values():
        for artifact in pointed:
            kinds[artifact.address] = _kind_of(artifact.media_type)
    _note_runs(runs, artifacts, used)
    for name in found_of:
        folder, _, rest = name.partition("/")
        if folder in ("lessons", "packs", "edits"):
            lesson = rest.partition("/")[0]
            used(name, lesson, newest.get(lesson, 0.0))
        if folder == "packs":  # the lines' own records and clips
            pack = store.read_record(name) or {}
            for address, line in pack.items():
                used(address, lesson, newest.get(lesson, 0.0))
                for artifact in _pointed_at(line.get("record")):
                    kinds.setdefault(artifact.address, _kind_of(artifact.media_type))
                    used(artifact.address, lesson, newest.get(lesson, 0.0))
    uses = []
    for name, found in found_of.items():
        folder = name.partition("/")[0]
        if folder in ("scratch", "claims", "figures"):
            continue
        kind = "edits" if folder == "edits" else "record"
        if _BLOB.fullmatch(name):
            kind = kinds.get(name, "audio")  # no record knows it: a clip of lines that were changed since, mostly
        uses.append(_Use(found, kind, max(found.modified, last.get(name, 0.0)), frozenset(lessons.get(name, ()))))
    return uses


def _note_runs(runs: Iterable[Run], artifacts: Mapping[str, list[Artifact]], used: Callable[[str, str, float], None]) -> None:
    for run in runs:
        at = run.started + run.seconds
        for entry in run.stages:
            used(entry.key, run.sha256, at)
            for artifact in artifacts.get(entry.key, ()):
                used(artifact.address, run.sha256, at)


def _pointed_at(value: Any) -> list[Artifact]:
    return list(artifacts_in(value)) if isinstance(value, dict | list) else []


def _kind_of(media_type: str) -> str:
    """
    >>> _kind_of("video/mp4"), _kind_of("audio"), _kind_of("text/vtt")
    ('video', 'audio', 'other')
    """
    kind = media_type.partition("/")[0]
    return kind if kind in ("audio", "video") else "other"
