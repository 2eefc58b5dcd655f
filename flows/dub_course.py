"""Dub a course: every lesson of a manifest, a few at a time.

The manifest is checked whole before anything starts. Then each lesson is a run of `dub-video` of its own; what one fails by stops no other.
Lessons of the same lecturer get the same voice: the one that the first of them was given, which is kept with the course. Running the flow
again does only what is missing or has changed, since that is what each lesson's run does.
"""

from __future__ import annotations

import io
import os
import re
import time
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from datetime import UTC, datetime, timedelta
from functools import partial
from pathlib import Path
from typing import Any, Literal, NamedTuple
from zoneinfo import ZoneInfo

from prefect import flow, get_client, get_run_logger
from prefect.artifacts import create_table_artifact
from prefect.client.schemas.filters import FlowRunFilter, FlowRunFilterState, FlowRunFilterStateType, FlowRunFilterTags
from prefect.client.schemas.objects import StateType
from prefect.context import FlowRunContext
from prefect.exceptions import ParameterTypeError
from prefect.states import Cancelling

from blocks import given
from blocks.kinescope import open_kinescope
from blocks.profiles import Engines, profile_named
from blocks.publishing import open_place
from blocks.store import Store, open_store
from blocks.webhook import open_webhook
from dubbing import course as courses
from dubbing import media, mixing, sources
from dubbing.course import LessonOfCourse
from dubbing.errors import BadInput, BadManifest, BadSetting, LessonsFailed, PassingFault
from dubbing.keys import digest
from dubbing.lesson import Term
from dubbing.manifest import LARGEST, Entry, of_folder, read
from dubbing.terms import as_table, from_table, together
from dubbing.wording import Wording, wording
from flows import parameters as wished
from flows.dub_video import Wishes, checks, dub_video, given_terms, output_folder
from flows.lesson_runs import Deployed, Ended, Here, LessonRuns
from flows.review import DAYS
from tasks.deliver import write_whole
from tasks.progress import WHOLE, Event, tell

LOOK_EVERY = 5.0  # seconds
SHOW_EVERY = 10.0  # seconds between two tables in Prefect's UI
_EACHS_OWN = ("source", "output", "title", "job")  # that each lesson has another of, and that nothing is to be checked in
MOST_SHOWN = 1000  # lessons in that table: first those of which there is something to say; all are on the page
_QUIET = ("waiting", "unchanged", "not started")
_OWN = ("manifest", "course", "at_once", "until", "timezone", "target_language", "output")  # parameters that are no lesson's


class Job(NamedTuple):
    """A lesson in one language."""

    entry: Entry
    language: str
    parameters: dict[str, Any]  # of `dub_video`

    @property
    def name(self) -> str:
        return f"{self.entry.title} into {self.language}"

    @property
    def voice_key(self) -> str:
        return f"{self.language} {self.entry.lecturer}"


def let_lessons_go(flow: Any, flow_run: Any, state: Any) -> None:
    """A course that was cancelled cancels those of its lessons that have not ended."""
    alive = FlowRunFilterState(type=FlowRunFilterStateType(any_=[StateType.SCHEDULED, StateType.PENDING, StateType.RUNNING]))
    with get_client(sync_client=True) as client:
        of_course = FlowRunFilter(tags=FlowRunFilterTags(all_=[_tag(str(flow_run.id))]), state=alive)
        for run in client.read_flow_runs(flow_run_filter=of_course):
            client.set_flow_run_state(run.id, Cancelling())


@flow(name="dub-course", on_cancellation=[let_lessons_go])
def dub_course(
    manifest: wished.Manifest,
    target_language: wished.TargetLanguages = "en",
    course: wished.Course = None,
    at_once: wished.AtOnce = 3,
    until: wished.Until = None,
    timezone: wished.Timezone = None,
    output: wished.CourseOutput = None,
    source_language: wished.SourceLanguage = None,
    voice: wished.Voice = None,
    captions: wished.Captions = "sentences",
    terms: wished.Terms = None,
    profile: wished.Profile = None,
    gpu_server: wished.GpuServer = None,
    separator: wished.Separator = None,
    recogniser: wished.Recogniser = None,
    translator: wished.Translator = None,
    speech: wished.Speech = None,
    loudness: wished.Loudness = mixing.TARGET_LOUDNESS,
    ducking: wished.Ducking = mixing.DUCKING,
    seed: wished.Seed = 0,
    store: wished.Store = None,
    publish_to: wished.PublishTo = None,
    kinescope: wished.Kinescope = None,
    webhook: wished.Webhook = None,
    max_megabytes: wished.MaxMegabytes = wished.MEGABYTES,
    max_hours: wished.MaxHours = wished.HOURS,
    review: wished.Review = "none",
    review_days: wished.ReviewDays = DAYS,
    report_language: wished.ReportLanguage = None,
) -> dict[str, Any]:
    """Dub every lesson of a course. Returns how each stands, and where the course's page is.

    Raises:
        BadManifest: nothing was begun.
        LessonsFailed: all others are done.
    """
    shared = {name: value for name, value in locals().items() if name not in _OWN}
    context = FlowRunContext.get()
    assert context and context.flow_run
    # One that a worker takes late has no longer for that; one that is started anew by hand has.
    due = context.flow_run.expected_start_time if context.flow_run.run_count <= 1 else None
    closes = closing_time(until, timezone, due)
    words = wording(report_language)
    results = open_store(store)
    name = course or sources.file_stem(sources.name_of(manifest.rstrip("/")))
    folder = course_folder(output, manifest, name)
    try:
        wrong: list[str] = []
        entries = entries_of(manifest, results, wrong)
        jobs = jobs_of(entries, languages_of(target_language), shared, folder, results, manifest, wrong)
    except BadManifest as errors:
        create_table_artifact(table=[{"error": error} for error in errors.errors], key="manifest-errors", description=str(errors))
        raise
    standing = Standing(name, jobs, folder, words)
    deployed = context.flow_run.deployment_id is not None
    runs: LessonRuns = Deployed([_tag(str(context.flow_run.id))]) if deployed else Here(at_once)
    try:
        _dub(jobs, runs, at_once, closes, Voices(results, name), standing)
    except BaseException:
        runs.stop()
        raise
    finally:
        standing.show(ended=True)
        results.close()
    failed = [lesson for lesson in standing.lessons if lesson.state == "failed"]
    if failed:
        first = f"{failed[0].title} into {failed[0].language}: {failed[0].why}"
        raise LessonsFailed(f"{courses.summary(standing.lessons)}; the first: {first}; all are in {standing.page}")
    return standing.result()


def _dub(jobs: Sequence[Job], runs: LessonRuns, at_once: int, closes: datetime | None, voices: Voices, standing: Standing) -> None:
    """Start lessons as there is room, until all have ended."""
    waiting = sorted(range(len(jobs)), key=lambda number: (jobs[number].entry.priority, number))
    in_work: set[int] = set()
    while waiting or in_work:
        if closes and datetime.now(closes.tzinfo) >= closes and waiting:
            standing.leave(waiting, f"no lesson starts after {closes:%H:%M}")
            waiting = []
        while len(in_work) < at_once and (number := _next(waiting, in_work, jobs, voices)) is not None:
            job = jobs[number]
            waiting.remove(number)
            in_work.add(number)
            voice = voices.of(job)
            own = {"lecturer_voice": voice} if voice else {}
            try:
                standing.begin(number, runs.start(number, job.name, job.parameters | own))
            except PassingFault as away:
                in_work.discard(number)
                standing.end(number, Ended("failed", str(away)))
        for number, ended in runs.ended(LOOK_EVERY if in_work else 0.0).items():
            in_work.discard(number)
            if ended.result and "voice" in ended.result:
                voices.keep(jobs[number], ended.result["voice"])
            standing.end(number, ended)
        for number in in_work:
            standing.advance(number, runs.share(number))
        standing.show()


def _next(waiting: Sequence[int], in_work: set[int], jobs: Sequence[Job], voices: Voices) -> int | None:
    """The next lesson; one whose lecturer is just being given a voice by another has to wait for that."""
    busy = {jobs[number].voice_key for number in in_work if not voices.is_settled(jobs[number])}
    return next((number for number in waiting if voices.is_settled(jobs[number]) or jobs[number].voice_key not in busy), None)


class Voices:
    """Which voice each lecturer has in each language, in one course."""

    def __init__(self, store: Store, course: str) -> None:
        self._store, self._record = store, f"courses/{digest('course', course)[:24]}"
        found = store.read_record(self._record)
        self._voices: dict[str, str] = dict(found["voices"]) if isinstance(found, Mapping) else {}
        self._course = course

    def is_settled(self, job: Job) -> bool:
        return bool(job.parameters.get("voice")) or job.voice_key in self._voices

    def of(self, job: Job) -> str:
        return "" if job.parameters.get("voice") else self._voices.get(job.voice_key, "")

    def keep(self, job: Job, voice: str) -> None:
        if not self.is_settled(job):
            self._voices[job.voice_key] = voice
            self._store.write_record(self._record, {"course": self._course, "voices": self._voices})


class Standing:
    """How the lessons stand, for whoever looks: a table in Prefect's UI, the course's page, bars at a terminal."""

    def __init__(self, name: str, jobs: Sequence[Job], folder: Path, words: Wording) -> None:
        self.name, self.folder, self.page = name, folder, folder / "index.html"
        self._words = words
        self.lessons = [LessonOfCourse(job.entry.row, job.entry.title, job.language) for job in jobs]
        self._names = [job.name for job in jobs]
        self._terms: dict[str, list[bytes]] = {}
        self._shown = 0.0
        self._changed = True

    def begin(self, number: int, run: str) -> None:
        self._set(number, state="in work", run=run)
        tell(Event(self._names[number], "started"))

    def advance(self, number: int, share: float) -> None:
        if share != self.lessons[number].share:
            self._set(number, share=share)
            tell(Event(self._names[number], "advanced", share))
            self._tell_whole()

    def leave(self, numbers: Sequence[int], why: str) -> None:
        for number in numbers:
            self._set(number, state="not started", why=why)

    def end(self, number: int, ended: Ended) -> None:
        made = ended.result or {}
        files = made.get("files", {})
        self._set(
            number,
            state=ended.state,
            why=ended.why,
            share=1.0,
            duration=made.get("duration"),
            seconds=made.get("seconds"),
            cost=made.get("gpu_server", {}).get("cost"),
            lines=made.get("lines"),
            flagged=made.get("lines_flagged"),
            word_error_rate=made.get("word_error_rate"),
            folder=made.get("output_dir", ""),
            page=files.get("page", ""),
            video=files.get("video", ""),
            address=made.get("addresses", {}).get("video", ""),
        )
        if "terms" in files:
            with suppress(OSError):  # the folder is another machine's
                found = Path(made["output_dir"], files["terms"]).read_bytes()
                self._terms.setdefault(self.lessons[number].language, []).append(found)
        log = get_run_logger()
        log.info("%s: %s %s", self._names[number], ended.state, ended.why)
        kind: Literal["failed", "finished"] = "failed" if ended.state == "failed" else "finished"
        tell(Event(self._names[number], kind, 1.0, "cached" if ended.state == "unchanged" else "computed", made.get("seconds", 0.0)))
        self._tell_whole()

    def show(self, ended: bool = False) -> None:
        """Write the page and the table, if something has changed and it isn't too soon."""
        now = time.monotonic()
        if not (ended or (self._changed and now - self._shown >= SHOW_EVERY)):
            return
        self._shown, self._changed = now, False
        rows = courses.table(sorted(self.lessons, key=lambda lesson: lesson.state in _QUIET)[:MOST_SHOWN])
        create_table_artifact(table=rows, key="course", description=f"{self.name}: {courses.summary(self.lessons)}")
        try:
            self.folder.mkdir(parents=True, exist_ok=True)
            for language, tables in self._terms.items():
                found = together(*(from_table(content, "terms.csv") for content in tables))
                write_whole(io.BytesIO(as_table(found).encode()), self.folder / f"terms.{language}.csv")
            page = courses.page(self.name, self.lessons, self.folder, sorted(self._terms), ended, self._words)
            write_whole(io.BytesIO(page.encode()), self.page)
        except OSError as error:
            raise BadSetting(f"output folder {self.folder}: {error.strerror or error}") from error

    def result(self) -> dict[str, Any]:
        return {
            "course": self.name,
            "output_dir": str(self.folder),
            "page": str(self.page),
            "summary": courses.summary(self.lessons),
            "lessons": [lesson._asdict() for lesson in self.lessons],
        }

    def _set(self, number: int, **changes: Any) -> None:
        self.lessons[number] = self.lessons[number]._replace(**changes)
        self._changed = True

    def _tell_whole(self) -> None:
        share = sum(lesson.share if lesson.state == "in work" else float(lesson.state in courses.OVER) for lesson in self.lessons)
        tell(Event(WHOLE, "advanced", share / len(self.lessons)))


def entries_of(manifest: str, store: Store, errors: list[str]) -> list[Entry]:
    """The lessons of a manifest, or of a folder of them.

    Args:
        errors: takes what is wrong with the form of single lessons.

    Raises:
        BadManifest, BadInput, DownloadFailed
    """
    name = sources.name_of(manifest.rstrip("/"))
    is_file = Path(name).suffix.lower() in (".csv", ".tsv", ".txt", ".json")
    if not is_file and (names := given.names_in(manifest, store)) is not None:
        return of_folder(names, name, manifest)
    where = manifest if sources.is_address(manifest) else str(sources.local_path(manifest).absolute().parent)
    if sources.is_in_bucket(manifest):
        where = manifest.rpartition("/")[0]
    return read(given.content(manifest, LARGEST, store), name, where, errors)


def languages_of(text: str) -> tuple[str, ...]:
    """
    >>> languages_of("en, pt-BR en")
    ('en', 'pt-BR')
    """
    return tuple(dict.fromkeys(re.findall(r"[^\s,;]+", text)))


def jobs_of(
    entries: Sequence[Entry],
    languages: Sequence[str],
    shared: Mapping[str, Any],
    folder: Path,
    store: Store,
    manifest: str,
    wrong: Sequence[str] = (),
) -> list[Job]:
    """Each lesson in each of its languages, with all that can be checked checked.

    Args:
        wrong: what is known to be wrong already.

    Raises:
        BadManifest: everything that is wrong, by row and column.
    """
    checked = Checks(store, media.Limits(shared["max_megabytes"], shared["max_hours"]))
    jobs, errors = [], [*wrong]
    taken: dict[str, int] = {}
    for entry in entries:
        errors += checked.source(entry)
        for language in entry.target_languages or languages:
            # All of them, also those that are None: a deployment of lessons may have defaults of its own.
            parameters = {**shared, **entry.overrides, "source": entry.source, "target_language": language}
            parameters["title"] = entry.title
            errors += checked.settings(entry, parameters)
            place = str(entry.overrides.get("output", "")) or sources.safe_name(entry.title)
            parameters["output"] = os.path.join(folder, f"{place}.{language}")
            if before := taken.get(parameters["output"].casefold()):
                errors.append(
                    f"row {entry.row}, {'source' if entry.target_languages else 'title'}: the same as in row {before}, into {language}"
                )
            taken.setdefault(parameters["output"].casefold(), entry.row)
            jobs.append(Job(entry, language, parameters))
    if errors:
        raise BadManifest(sources.name_of(manifest), dict.fromkeys(errors))
    return jobs


class Checks:
    """What can be refused before any work. Each set of settings is looked at once."""

    def __init__(self, store: Store, limits: media.Limits) -> None:
        self._store, self._limits = store, limits
        self._engines: dict[str, Engines | BadInput] = {}
        self._terms: dict[str | None, tuple[Term, ...] | BadInput] = {}
        self._places: dict[tuple[str, str], BadInput | None] = {}
        self._told: dict[str, list[tuple[str, str]]] = {}

    def source(self, entry: Entry) -> list[str]:
        """A file on this machine that isn't there, or is too large."""
        if sources.is_address(entry.source):
            return []
        try:
            path = sources.local_path(entry.source)
            media.check_readable(path, entry.source)
            limit = entry.overrides.get("max_megabytes", self._limits.megabytes)
            media.check_size(path.stat().st_size, entry.source, media.Limits(float(limit), self._limits.hours))
        except BadInput as error:
            return [f"row {entry.row}, source: {error}"]
        return []

    def settings(self, entry: Entry, parameters: Mapping[str, Any]) -> list[str]:
        asked = {name: value for name, value in parameters.items() if name not in _EACHS_OWN}
        name = str(sorted(asked.items()))
        if name not in self._told:
            self._told[name] = list(self._wrong(asked))
        # A setting that the row doesn't have is the course's: told once, without a row.
        own = {*entry.overrides, *(["target_language"] if entry.target_languages else [])}
        return [
            f"row {entry.row}, {column}: {what}" if column in own or not column else f"{column}: {what}"
            for column, what in self._told[name]
        ]

    def _wrong(self, asked: Mapping[str, Any]) -> list[tuple[str, str]]:
        """Columns, with what is wrong there."""
        wrong: list[tuple[str, str]] = []
        try:
            typed = dub_video.validate_parameters({"source": "lesson.mp4", **asked})
        except ParameterTypeError as error:
            lines = [line.strip(" -").partition(": ") for line in str(error).splitlines()[1:]]
            wrong += [(field.partition(".")[0], reason) for field, _, reason in lines]
            # The others count, too.
            columns = {column for column, _ in wrong}
            try:
                typed = dub_video.validate_parameters(
                    {"source": "lesson.mp4", **{name: value for name, value in asked.items() if name not in columns}}
                )
            except ParameterTypeError:
                return wrong
        families = ("profile", "separator", "recogniser", "translator", "speech")
        engines = self._made(*(typed[family] for family in families))
        terms = self._terms_of(typed["terms"])
        found: list[tuple[str, BadInput]] = [("", engines)] if isinstance(engines, BadInput) else []
        if isinstance(terms, BadInput):
            found.append(("terms", terms))
        if not isinstance(engines, BadInput):
            wishes = Wishes(**{field: typed[field] for field in Wishes._fields if field != "terms"})
            found += [("", refused) for one in checks(engines, wishes) if (refused := _refusal(one))]
        places: tuple[tuple[str, Callable[[str], object]], ...] = (
            ("publish_to", lambda name: open_place(name, self._store)),
            ("kinescope", lambda name: open_kinescope(name).check()),
            ("webhook", open_webhook),
        )
        for column, opened in places:
            if name := typed[column]:
                if (column, name) not in self._places:
                    self._places[column, name] = _refusal(partial(opened, name))
                if closed := self._places[column, name]:
                    found.append((column, closed))
        return [*wrong, *((column or _column_of(str(error), asked), str(error)) for column, error in found)]

    def _terms_of(self, name: str | None) -> tuple[Term, ...] | BadInput:
        if name not in self._terms:
            try:
                self._terms[name] = given_terms(name, self._store)
            except BadInput as error:
                self._terms[name] = error
        return self._terms[name]

    def _made(
        self, profile: str | None, separator: str | None, recogniser: str | None, translator: str | None, speech: str | None
    ) -> Engines | BadInput:
        name = str((profile, separator, recogniser, translator, speech))
        if name not in self._engines:
            try:
                chosen = profile_named(profile, separator=separator, recogniser=recogniser, translator=translator, speech=speech)
                self._engines[name] = chosen.engines()
            except BadInput as error:
                self._engines[name] = error
        return self._engines[name]


def _refusal(check: Callable[[], object]) -> BadInput | None:
    try:
        check()
    except BadInput as error:
        return error
    return None


def _column_of(message: str, asked: Mapping[str, Any]) -> str:
    """The column that a refusal is about: the one that it begins with, else the one whose value it names."""
    start = message.replace(" ", "_").lower()
    known = [name for name in asked if start.startswith((f"{name}_", f"{name}:"))]
    named = [name for name, value in asked.items() if isinstance(value, str) and value in message]
    return next(iter([*known, *named, "target_language"]))


def closing_time(until: str | None, timezone: str | None, due: datetime | None = None) -> datetime | None:
    """The next time that it is so late.

    Args:
        due: when the run should have started; now when None.

    Raises:
        BadSetting
    """
    if until is None:
        return None
    zone = timezone or os.environ.get("COURSEDUB_TIMEZONE") or "UTC"
    try:
        start = (due or datetime.now(UTC)).astimezone(ZoneInfo(zone))
    except (ValueError, OSError, KeyError):
        raise BadSetting(f"timezone {zone}: no time zone is called that (Europe/Berlin, say)") from None
    found = re.fullmatch(r"([01]?\d|2[0-3]):([0-5]\d)", until, re.ASCII)
    if not found:
        raise BadSetting(f"until {until}: must be a time of day, from 00:00 to 23:59")
    closes = start.replace(hour=int(found[1]), minute=int(found[2]), second=0, microsecond=0)
    return closes if closes > start else closes + timedelta(days=1)


def course_folder(output: str | None, manifest: str, name: str) -> Path:
    return output_folder(output, manifest, f"{sources.safe_name(name)}.dubbed")


def _tag(run: str) -> str:
    return f"course-{run}"
