"""A course of lessons: the whole program on stand-in engines."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Sequence
from datetime import datetime
from pathlib import Path
from typing import Any
from zoneinfo import ZoneInfo

import pytest

from blocks.s3_files import S3Files
from blocks.store import Store
from dubbing.errors import BadSetting
from dubbing.manifest import LAST, Entry
from flows.dub_course import Job, Voices, _next, closing_time, course_folder
from tests.conftest import Bucket
from tests.flows.stand_in_runs import CALM, Done, Run
from tests.lessons import make_lesson
from tests.seaweed import Seaweed
from tests.stand_ins import uses

pytestmark = pytest.mark.usefixtures("prefect_server")

SECONDS = 6.0
LOW, HIGH = 120, 300  # Hz: lecturers of different registers


@pytest.fixture(scope="module")
def lessons(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Three good lessons, one of them of a lower voice, and one that is none."""
    folder = tmp_path_factory.mktemp("lessons")
    for name, tone in (("1 light", HIGH), ("2 waves", LOW), ("10 colour", HIGH + 20)):
        make_lesson(folder / f"{name}.mp4", SECONDS, tone)
    (folder / "3 broken.mp4").write_bytes(b"not a video at all" * 100)
    return folder


def run(tmp_path: Path, manifest: Path, *options: str | Path) -> Done:
    arguments = ["course", manifest, "--store", tmp_path / "store", "--output", tmp_path / "course", "--json", *options]
    return Run(arguments, tmp_path / "notes", CALM, {}).wait()


def manifest(tmp_path: Path, text: str) -> Path:
    path = tmp_path / "physics.csv"
    path.write_text(text)
    return path


def standing(result: dict[str, Any]) -> list[tuple[str, str, str]]:
    return [(lesson["title"], lesson["language"], lesson["state"]) for lesson in result["lessons"]]


def timeline(tmp_path: Path, lesson: str) -> dict[str, Any]:
    return dict(json.loads((tmp_path / "course" / lesson / "timeline.json").read_text()))


def test_a_bad_lesson_stops_no_other_and_running_again_does_what_is_missing(lessons: Path, tmp_path: Path) -> None:
    whole = run(tmp_path, lessons, "--to", "en,es")
    assert whole.code == 42
    assert "8 lessons: 6 dubbed, 2 failed; the first: 3 broken into en: 3 broken.mp4: not a media file" in whole.errors
    assert (tmp_path / "course" / "1 light.es" / "1 light.es.mp4").is_file()
    page = (tmp_path / "course" / "index.html").read_text()
    assert "1%20light.en/index.html" in page and "not a media file" in page and 'http-equiv="refresh"' not in page
    # What the languages share was done once.
    counts = Counter(use.split()[0] for use in uses(tmp_path / "notes" / "uses"))
    assert (counts["separate"], counts["transcribe"]) == (3, 3)

    good = manifest(tmp_path, "source,title\n" + "".join(f"{lessons}/{name}.mp4,{name}\n" for name in ("1 light", "2 waves", "10 colour")))
    before = len(uses(tmp_path / "notes" / "uses"))
    again = run(tmp_path, good, "--to", "en es", "--course", lessons.name, "--report-language", "ru")
    assert {state for _, _, state in standing(again.result)} == {"unchanged"}
    assert "6 уроков (без изменений: 6)" in (tmp_path / "course" / "index.html").read_text()
    assert '<html lang="ru">' in (tmp_path / "course" / "1 light.es" / "index.html").read_text()
    assert len(uses(tmp_path / "notes" / "uses")) == before, "no engine was used"


def test_what_a_row_says_goes_before_what_the_course_says(lessons: Path, tmp_path: Path) -> None:
    rows = [
        "source,title,target_language,voice,priority,output,report_language",
        f"{lessons}/1 light.mp4,Light,,,,,",
        f"{lessons}/2 waves.mp4,Waves,es,viktor,1,second,ru",
    ]
    done = run(tmp_path, manifest(tmp_path, "\n".join(rows)), "--to", "en", "--voice", "vera", "--at-once", "1")
    assert standing(done.result) == [("Light", "en", "dubbed"), ("Waves", "es", "dubbed")]
    written = [(tmp_path / "course" / name / "timeline.json").stat().st_mtime_ns for name in ("second.es", "Light.en")]
    assert written == sorted(written), "the one with a priority came first"
    assert {line["voice"] for line in timeline(tmp_path, "second.es")["lines"]} == {"viktor"}
    assert {line["voice"] for line in timeline(tmp_path, "Light.en")["lines"]} == {"vera"}
    pages = [(tmp_path / "course" / name / "index.html").read_text() for name in ("second.es", "Light.en", ".")]
    assert ['<html lang="ru">' in page for page in pages] == [True, False, False]


def test_a_lecturer_keeps_the_voice_of_the_first_lesson(lessons: Path, tmp_path: Path) -> None:
    """The second lesson alone would get the lower voice."""
    rows = [f"{lessons}/1 light.mp4,Ivanova", f"{lessons}/2 waves.mp4,Ivanova", f"{lessons}/10 colour.mp4,Petrov"]
    done = run(tmp_path, manifest(tmp_path, "source,lecturer\n" + "\n".join(rows)))
    assert {state for _, _, state in standing(done.result)} == {"dubbed"}
    assert {line["voice"] for line in timeline(tmp_path, "2 waves.en")["lines"]} == {"vera"}
    alone = run(tmp_path, manifest(tmp_path, f"source\n{lessons}/2 waves.mp4\n"), "--course", "another")
    assert alone.code == 0
    assert {line["voice"] for line in timeline(tmp_path, "2 waves.en")["lines"]} == {"viktor"}


def test_everything_wrong_is_told_before_anything_starts(lessons: Path, tmp_path: Path) -> None:
    rows = [
        "source,target_language,voice,loudness,seed,title,report_language",
        f"{lessons}/1 light.mp4,en,nobody,,,,",
        f"{lessons}/nothing.mp4,,,,,,",
        f"{lessons}/2 waves.mp4,tlh,,,,,",
        f"{lessons}/2 waves.mp4,en,,-99,,b,",
        f"{lessons}/2 waves.mp4,en,,loud,,c,",
        f"{lessons}/2 waves.mp4,en,,,-1,d,",
        f"{lessons}/10 colour.mp4,,,,,same,",
        f"{lessons}/1 light.mp4,,,,,same,",
        f"{lessons}/1 light.mp4,,,,,e,de",
        f"{lessons}/1 light.mp4,,nobody,3,one,f,",
        f"{lessons}/1 light.mp4,en,nobody,3,-1,g,de",
    ]
    done = run(tmp_path, manifest(tmp_path, "\n".join(rows)))
    assert done.code == 22
    errors = [line.removeprefix("coursedub: ") for line in done.errors.splitlines()]
    starts = [
        "row 2, voice: voice nobody: stand-in has no such voice",
        f"row 3, source: {lessons}/nothing.mp4: ",
        "row 4, target_language: stand-in doesn't know the language tlh",
        "row 5, loudness: loudness -99: must be from",
        "row 6, loudness: ",
        "row 7, seed: Input should be greater than or equal to 0",
        "row 9, title: the same as in row 8, into en",
        "row 10, report_language: Input should be 'en' or 'ru'",
        "row 11, seed: 'one' is no number",
        "row 12, voice: voice nobody",
        "row 12, loudness: loudness 3: must be from",
        "row 12, seed: Input should be",
        "row 12, report_language: Input should be",
    ]
    for start in starts:
        assert any(error.startswith(start) for error in errors), (start, errors)
    assert not uses(tmp_path / "notes" / "uses") and not (tmp_path / "course").exists()


def test_a_course_in_a_bucket_is_dubbed_from_there(lessons: Path, tmp_path: Path, bucket: Bucket, seaweed: Seaweed) -> None:
    """The lessons, their manifest and the terms."""
    files = S3Files(f"{bucket.address}/physics", bucket.credentials)
    for name in ("1 light.mp4", "2 waves.mp4"):
        files.upload(lessons / name, name)
    files.write("terms.csv", "source,translation\nпредложение,clause\n".encode())
    files.write("list.json", json.dumps([{"source": "2 waves.mp4", "terms": "terms.csv"}, {"source": "nothing.mp4"}]).encode())
    arguments = ["--store", f"{bucket.address}/store", "--output", tmp_path / "course", "--json"]

    def course(manifest: str) -> Done:
        return Run(["course", manifest, *arguments], tmp_path / "notes", CALM, seaweed.environment()).wait()

    whole = course(f"{bucket.address}/physics")
    assert standing(whole.result) == [("1 light", "en", "dubbed"), ("2 waves", "en", "dubbed")]
    listed = course(f"{bucket.address}/physics/list.json")
    assert listed.code == 42 and "1 dubbed, 1 failed; the first: nothing into en: " in listed.errors
    assert "nothing.mp4: there is no such object" in listed.errors
    assert "предложение" in (tmp_path / "course" / "2 waves.en" / "terms.csv").read_text()


def test_a_course_of_ten_thousand_lessons_is_checked_whole(tmp_path: Path) -> None:
    rows = "".join(f"https://example.org/{number}.mp4,{'nobody' if number == 7777 else 'vera'}\n" for number in range(10_000))
    done = run(tmp_path, manifest(tmp_path, "source,voice\n" + rows))
    assert (done.code, len(done.errors.splitlines())) == (22, 1)
    assert done.errors.startswith("coursedub: row 7779, voice: voice nobody")


def test_a_setting_of_the_course_that_is_wrong_is_told_once(lessons: Path, tmp_path: Path) -> None:
    done = run(tmp_path, lessons, "--voice", "nobody")
    assert (done.code, len(done.errors.splitlines())) == (22, 1)
    assert done.errors.startswith("coursedub: voice: voice nobody")


def test_no_lesson_starts_after_the_window_closed(lessons: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from flows import dub_course

    monkeypatch.setattr(dub_course, "closing_time", lambda until, timezone, due: datetime(2020, 1, 1, 6, 0, tzinfo=ZoneInfo("UTC")))
    result = dub_course.dub_course(
        str(manifest(tmp_path, f"source\n{lessons}/1 light.mp4\n")), store=str(tmp_path / "store"), until="06:00"
    )
    [lesson] = result["lessons"]
    assert (lesson["state"], lesson["why"]) == ("not started", "no lesson starts after 06:00")


def test_a_time_of_day_is_the_next_one_in_its_zone(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("COURSEDUB_TIMEZONE", "Asia/Tokyo")
    for zone, name in ((None, "Asia/Tokyo"), ("Europe/Berlin", "Europe/Berlin")):
        closes = closing_time("06:30", zone)
        assert closes and (closes.hour, closes.minute, str(closes.tzinfo)) == (6, 30, name)
        assert 0 < (closes - datetime.now(ZoneInfo(name))).total_seconds() <= 25 * 3600
    assert closing_time(None, None) is None
    for until, zone in (("24:00", None), ("6", None), ("06:00", "Europe/Nowhere"), ("06:00", "../etc/passwd")):
        with pytest.raises(BadSetting):
            closing_time(until, zone)


def test_a_nightly_run_that_a_worker_takes_in_the_morning_starts_nothing_all_day() -> None:
    one_at_night = datetime(2026, 11, 28, 1, 0, tzinfo=ZoneInfo("Europe/Berlin"))
    assert closing_time("06:00", "Europe/Berlin", one_at_night) == one_at_night.replace(hour=6)
    assert closing_time("23:00", "UTC", one_at_night) == datetime(2026, 11, 28, 23, 0, tzinfo=ZoneInfo("UTC"))
    assert closing_time("00:00", "UTC", one_at_night) == datetime(2026, 11, 29, 0, 0, tzinfo=ZoneInfo("UTC"))


def test_a_course_knows_when_it_was_due(lessons: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from flows import dub_course

    dues: list[datetime | None] = []
    monkeypatch.setattr(dub_course, "closing_time", lambda until, timezone, due: dues.append(due) or due)
    result = dub_course.dub_course(
        str(manifest(tmp_path, f"source\n{lessons}/1 light.mp4\n")), store=str(tmp_path / "store"), until="06:00"
    )
    [due] = dues
    assert due and abs((datetime.now(due.tzinfo) - due).total_seconds()) < 60 and result["lessons"][0]["state"] == "not started"


def test_lessons_of_a_lecturer_wait_for_the_first_to_be_given_a_voice(tmp_path: Path) -> None:
    def job(lecturer: str, language: str = "en", voice: str | None = None) -> Job:
        return Job(Entry(2, "a.mp4", "a", (), lecturer, LAST, {}), language, {"voice": voice})

    jobs: Sequence[Job] = [job("Ivanova"), job("Ivanova"), job("Ivanova", "es"), job("Ivanova", voice="viktor"), job("Petrov")]
    store = Store(folder=str(tmp_path / "store"))
    voices = Voices(store, "physics")
    order, waiting = [], list(range(len(jobs)))
    while (number := _next(waiting, set(order), jobs, voices)) is not None:
        order.append(number)
        waiting.remove(number)
    assert (order, waiting) == ([0, 2, 3, 4], [1])
    voices.keep(jobs[0], "vera")
    assert _next(waiting, set(), jobs, voices) == 1
    assert (Voices(store, "physics").of(jobs[1]), Voices(store, "physics").of(jobs[3]), Voices(store, "chemistry").of(jobs[1])) == (
        "vera",
        "",
        "",
    )


def test_a_clone_is_nobody_elses_voice_and_settles_the_matter(tmp_path: Path) -> None:
    voices = Voices(Store(folder=str(tmp_path / "store")), "physics")
    job = Job(Entry(2, "a.mp4", "a", (), "", LAST, {}), "en", {})
    voices.keep(job, "")
    assert voices.is_settled(job) and voices.of(job) == ""


def test_the_results_lie_beside_the_manifest_or_where_they_are_wanted(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    assert course_folder(None, "/courses/physics.csv", "physics") == Path("/courses/physics.dubbed")
    assert course_folder(None, "s3://bucket/physics/", "physics") == tmp_path / "physics.dubbed"
    assert course_folder("out", "/courses/physics.csv", "physics") == tmp_path / "out"
