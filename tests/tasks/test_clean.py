"""Cleaning a store: what nobody has used for a while goes, what a kept lesson refers to never does."""

from __future__ import annotations

import json
import os
import time
from pathlib import Path

import pytest

from blocks.store import Store
from dubbing.errors import BadSetting
from dubbing.lesson import Artifact, Source, plain
from tasks.clean import Policy, Removal, by_kind, removals, remove
from tasks.history import History, StageEntry

DAY = 86400.0
GROUP = "9" * 64
POLICY = Policy()


class Lessons:
    """A store with lessons of two blobs and two records each, as runs leave them."""

    def __init__(self, store: Store) -> None:
        self.store, self.root = store, Path(store.folder)

    def add(self, name: str, *, shared: Artifact | None = None) -> tuple[str, Artifact, Artifact]:
        """A lesson that was dubbed just now: its digest, its sound and its video."""
        sha256 = (name * 64)[:64]
        sound = shared or self.store.put_bytes(f"sound of {name}".encode() * 1000, "audio/wav")
        video = self.store.put_bytes(f"video of {name}".encode() * 1000, "video/mp4")
        entries = []
        for stage, artifact in (("separate", sound), ("render", video)):
            key = f"records/{stage}/v1/{sha256}"
            envelope = {"metadata": {}, "result": json.dumps({"media": plain(artifact)})}
            self.store.write_path(key, json.dumps(envelope).encode())
            entries.append(StageEntry(stage, 1, key, {}, "computed", 1.0, None, None))
        clip = self.store.put_bytes(f"clip of {name}".encode() * 100, "audio/wav")
        line = f"lines/synthesize/v1/{sha256}"
        self.store.write_record(line, {"clip": {"media": plain(clip)}})
        pack = {line: {"ids": ["a"], "own": {}, "record": {"clip": {"media": plain(clip)}}}}
        self.store.write_record(f"packs/{sha256}/synthesize/v1/{GROUP}", pack)
        history = History(Source(path="", name=name, sha256=sha256, size=1, duration=1.0), "en", "")
        for entry in entries:
            history.note(entry)
        history.save(self.store, "completed")
        return sha256, sound, video

    def names(self) -> set[str]:
        return {found.name for found in self.store.files.found("")}


@pytest.fixture
def lessons(store: Store) -> Lessons:
    return Lessons(store)


def gone(found: list[Removal]) -> set[str]:
    return {removal.name for removal in found}


def after(days: float) -> float:
    return time.time() + days * DAY


def test_nothing_goes_that_is_young(lessons: Lessons) -> None:
    lessons.add("a")
    assert removals(lessons.store, POLICY) == []
    assert removals(lessons.store, POLICY, now=after(6.9)) == []


def test_sounds_go_after_a_week_and_videos_after_a_month(lessons: Lessons) -> None:
    sha256, sound, video = lessons.add("a")
    week = gone(removals(lessons.store, POLICY, now=after(7.1)))
    assert sound.address in week
    assert all(name.startswith("blobs/") for name in week)
    assert video.address not in week
    month = gone(removals(lessons.store, POLICY, now=after(30.1)))
    assert {sound.address, video.address, f"packs/{sha256}/synthesize/v1/{GROUP}"} <= month
    assert month == {name for name in lessons.names() if not name.startswith("figures/")}


def test_what_another_run_used_since_stays(lessons: Lessons, monkeypatch: pytest.MonkeyPatch) -> None:
    _, shared, video = lessons.add("a")
    then = after(20)
    with monkeypatch.context() as later:
        later.setattr(time, "time", lambda: then)
        _, _, other = lessons.add("b", shared=shared)
    found = gone(removals(lessons.store, POLICY, now=after(25)))
    assert shared.address not in found, "it was used five days ago"
    found = gone(removals(lessons.store, POLICY, now=after(40)))
    assert {shared.address, video.address} <= found
    assert other.address not in found


def test_a_lesson_that_is_kept_loses_nothing_however_old(lessons: Lessons) -> None:
    kept, sound, video = lessons.add("a")
    lessons.add("b")
    found = gone(removals(lessons.store, Policy(keep=frozenset({kept})), now=after(1000)))
    assert found
    assert not {sound.address, video.address, f"records/render/v1/{kept}", f"lines/synthesize/v1/{kept}"} & found
    assert not [name for name in found if kept in name]


def test_a_lesson_goes_whole_and_alone(lessons: Lessons) -> None:
    sha256, shared, video = lessons.add("a")
    other, *_ = lessons.add("b", shared=shared)
    found = gone(removals(lessons.store, Policy(lessons=frozenset({sha256}))))
    assert video.address in found
    assert shared.address not in found, "the other lesson refers to it"
    assert {f"records/render/v1/{sha256}", f"lines/synthesize/v1/{sha256}", f"packs/{sha256}/synthesize/v1/{GROUP}"} <= found
    assert not [name for name in found if other in name]
    remove(lessons.store, removals(lessons.store, Policy(lessons=frozenset({sha256}))))
    assert not [name for name in lessons.names() if sha256 in name]
    assert lessons.store.missing([shared]) == []


def test_edits_stay_unless_they_are_named(lessons: Lessons) -> None:
    sha256, *_ = lessons.add("a")
    lessons.store.write_record(f"edits/{sha256}/en", {"edits": []})
    assert f"edits/{sha256}/en" not in gone(removals(lessons.store, POLICY, now=after(1000)))
    assert f"edits/{sha256}/en" not in gone(removals(lessons.store, Policy(lessons=frozenset({sha256}))))
    assert f"edits/{sha256}/en" in gone(removals(lessons.store, Policy(lessons=frozenset({sha256}), with_edits=True)))


def test_down_to_a_size_the_lessons_unused_for_longest_go_first(lessons: Lessons, monkeypatch: pytest.MonkeyPatch) -> None:
    _, old_sound, old_video = lessons.add("a")
    then = after(2)
    with monkeypatch.context() as later:
        later.setattr(time, "time", lambda: then)
        new_sha256, new_sound, new_video = lessons.add("b")
    total = sum(found.size for found in lessons.store.files.found("") if not found.name.startswith("figures/"))
    now = after(3)
    found = removals(lessons.store, Policy(size=total - old_video.size - 1), now=now)
    assert not {new_sound.address, new_video.address} & gone(found)
    assert sum(removal.size for removal in found) >= old_video.size + 1
    found = removals(lessons.store, Policy(size=0, keep=frozenset({new_sha256})), now=now)
    assert {old_sound.address, old_video.address} <= gone(found)
    assert not {new_sound.address, new_video.address} & gone(found)
    assert removals(lessons.store, Policy(size=total), now=now) == []


def test_a_run_that_is_not_finished_loses_nothing(lessons: Lessons) -> None:
    blob = lessons.store.put_bytes(b"just made", "audio/wav")
    policy = Policy(audio_days=0, video_days=0, other_days=0, size=0)
    assert blob.address not in gone(removals(lessons.store, policy))
    assert blob.address in gone(removals(lessons.store, policy, now=after(0.1)))


def test_what_dead_runs_left_goes_after_a_day(lessons: Lessons) -> None:
    lessons.add("a")
    dead = f"claims/{'ab' * 16}/{'cd' * 16}"
    for name in ("scratch/123-abc/sound.wav", dead):
        path = lessons.root / name
        path.parent.mkdir(parents=True)
        path.write_bytes(b"left")
        os.utime(path, (after(-2), after(-2)))
    (lessons.root / "scratch/young").write_bytes(b"in hand")
    assert gone(removals(lessons.store, POLICY)) == {"scratch/123-abc/sound.wav", dead}
    remove(lessons.store, removals(lessons.store, POLICY))
    assert not (lessons.root / "scratch/123-abc").exists()


def test_the_summary_adds_up(lessons: Lessons) -> None:
    lessons.add("a")
    found = removals(lessons.store, POLICY, now=after(31))
    rows = by_kind(found)
    assert sum(row["files"] for row in rows) == len(found)
    assert sum(row["bytes"] for row in rows) == sum(removal.size for removal in found)
    assert {row["kind"] for row in rows} == {"audio", "video", "record"}


def test_a_damaged_run_keeps_nothing_and_breaks_nothing(lessons: Lessons) -> None:
    lessons.add("a")
    [path] = lessons.root.glob("lessons/*/*")
    path.write_bytes(path.read_bytes()[:-5])
    assert removals(lessons.store, POLICY) == []
    assert removals(lessons.store, POLICY, now=after(31))


def test_files_that_are_not_the_stores_own_are_never_touched(lessons: Lessons) -> None:
    lessons.add("a")
    own = ["README.txt", "thesis/chapter.tex", ".hidden", "blobs/notes.txt", "lessons/plan.docx", f"sub/blobs/ab/{'ab' * 32}", "edits/x"]
    for name in own:
        path = lessons.root / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(b"mine")
        os.utime(path, (after(-1000), after(-1000)))
    for policy in (POLICY, Policy(size=0), Policy(audio_days=0, video_days=0, other_days=0)):
        assert not set(own) & gone(removals(lessons.store, policy, now=after(1000)))
    remove(lessons.store, removals(lessons.store, POLICY, now=after(1000)))
    assert all((lessons.root / name).read_bytes() == b"mine" for name in own)


def test_a_folder_that_is_no_store_is_refused(tmp_path: Path) -> None:
    (tmp_path / "cv.pdf").write_bytes(b"mine")
    with pytest.raises(BadSetting, match="nothing of a store's"):
        removals(Store(folder=str(tmp_path)), POLICY, now=after(1000))
    with pytest.raises(BadSetting, match="nothing there"):
        removals(Store(folder=str(tmp_path / "none")), POLICY)
