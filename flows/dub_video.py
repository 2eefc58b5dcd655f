"""Dub one lesson: a recording in one language goes in, the same lesson in another comes out.

The story, stage by stage: take the recording into the store; take its sound; take the voice apart from the background while the words are
recognised; translate them line by line, while it is found out who speaks and what each voice can be cloned from; speak each line; place all
lines on the timeline (a line that is too long for its place is said shorter, twice at most); lay what a reviewer changed over all that; mix
the lines over the background; write the subtitles; put picture, tracks and subtitles together; measure the result. What
is approved is published, where that is asked for, and whoever waits for it is told.

Every stage is computed once for the same inputs: running the flow again does only what changed, after a crash only what was not finished.
The same story, told without working, is the plan (`flows/plan_lesson.py`).
"""

from __future__ import annotations

import os
import time
from collections import Counter
from collections.abc import Callable, Mapping
from functools import partial
from pathlib import Path
from typing import Any, Literal, NamedTuple, TypeVar

from prefect import State, flow, runtime
from prefect.context import FlowRunContext
from prefect.states import Completed

from blocks import given as given_files
from blocks.engine import with_packages_of_another
from blocks.gpu_server import GpuServer, open_gpu_server
from blocks.kinescope import Kinescope, open_kinescope
from blocks.profiles import Engines, Profile, name_of_profile, profile_named
from blocks.publishing import Place, open_place
from blocks.speech import SpeechEngine
from blocks.store import Store, default_store, file_digest, open_store
from blocks.translation import Translator
from blocks.webhook import open_webhook
from dubbing import media, mixing, placement, sources
from dubbing.documents import spoken_by
from dubbing.edits import Revision
from dubbing.errors import BadSetting, BlobDamaged, UnsupportedLanguage
from dubbing.languages import base_language, is_tag, name_of
from dubbing.lesson import (
    Artifact,
    Cast,
    Clips,
    Recording,
    Source,
    Speakers,
    Stems,
    Term,
    Termbase,
    Timeline,
    Transcript,
    Translation,
    plain,
)
from dubbing.terms import LARGEST_FILE, from_table, with_given
from dubbing.webhooks import in_one_line
from dubbing.wording import Wording, wording
from flows import parameters
from flows.imagine import imagine
from flows.review import DAYS, Rejected, Waiting, settle
from tasks import approval
from tasks.announce import Teller, announce, announce_now, announcing
from tasks.approval import ReviewWanted
from tasks.deliver import Delivered, Made, deliver, delivered
from tasks.extract_audio import extract_audio
from tasks.fit import fit
from tasks.hand_over import Spent, hand_over, noted_packages, spent_before
from tasks.history import runs_of, written_down
from tasks.ingest import ingest
from tasks.inspect import inspect
from tasks.mix import mix
from tasks.planning import is_known, passes_unknown
from tasks.progress import StageLog, advance_download, publish_result, watched_by
from tasks.publish import completed, publish, publish_for_review, publish_to_kinescope, published
from tasks.render import render
from tasks.retranslate import retranslate
from tasks.review import Review, as_rows
from tasks.separate import separate
from tasks.shorten import shorten
from tasks.speakers import are_told_apart, cast, lecturers_voice, speakers
from tasks.stage import Known, Pending, tell_waiting, working_with
from tasks.subtitles import subtitles
from tasks.synthesize import Speaking
from tasks.terms import terms
from tasks.transcribe import transcribe
from tasks.translate import translate

SHORTER_AT_MOST = 2  # times a line that doesn't fit is said shorter
REPLAYS = 3  # times the same blob may turn out damaged before the store is given up

Told = TypeVar("Told")


class Wishes(NamedTuple):
    """What was asked for, checked."""

    target_language: str
    source_language: str | None
    voice: str | None
    captions: Literal["sentences", "words"]
    loudness: float | Literal["source"]
    ducking: float
    seed: int
    terms: tuple[Term, ...] = ()
    lecturer_voice: str | None = None  # of who speaks most, where a course has given that person one
    review: Literal["none", "translation", "voiceover"] = "none"


def let_go(flow: Any, flow_run: Any, state: Any) -> None:
    """The run needs the GPU server no more, however it ended."""
    name = flow_run.parameters.get("gpu_server")
    if name:
        server = open_gpu_server(name)
        server.leases().give_back_of(str(flow_run.id))


def tell_failed(flow: Any, flow_run: Any, state: Any) -> None:
    """Whoever waits for the lesson learns that it will not come, also from a run that was killed."""
    given = flow_run.parameters
    if given.get("webhook"):
        teller = teller_of(given["webhook"], given.get("job"), str(flow_run.id), given["source"], given.get("target_language", "en"))
        announce_now(teller, "video_failed", str(state.id), error=in_one_line(state.message or state.name), state=state.name)


def called() -> str:
    """The run's name, for people."""
    given = runtime.flow_run.parameters
    lesson = given.get("title") or sources.name_of(given["source"])
    return f"{lesson} into {given.get('target_language') or 'en'}"


@flow(
    name="dub-video",
    flow_run_name=called,
    on_completion=[let_go],
    on_failure=[let_go, tell_failed],
    on_cancellation=[let_go, tell_failed],
    on_crashed=[let_go, tell_failed],
)
def dub_video(
    source: parameters.Lesson,
    target_language: parameters.TargetLanguage = "en",
    source_language: parameters.SourceLanguage = None,
    voice: parameters.Voice = None,
    lecturer_voice: parameters.LecturerVoice = None,
    captions: parameters.Captions = "sentences",
    terms: parameters.Terms = None,
    output: parameters.Output = None,
    profile: parameters.Profile = None,
    gpu_server: parameters.GpuServer = None,
    separator: parameters.Separator = None,
    recogniser: parameters.Recogniser = None,
    translator: parameters.Translator = None,
    speech: parameters.Speech = None,
    loudness: parameters.Loudness = mixing.TARGET_LOUDNESS,
    ducking: parameters.Ducking = mixing.DUCKING,
    seed: parameters.Seed = 0,
    store: parameters.Store = None,
    publish_to: parameters.PublishTo = None,
    kinescope: parameters.Kinescope = None,
    title: parameters.Title = None,
    webhook: parameters.Webhook = None,
    job: parameters.Job = None,
    max_megabytes: parameters.MaxMegabytes = parameters.MEGABYTES,
    max_hours: parameters.MaxHours = parameters.HOURS,
    review: parameters.Review = "none",
    review_days: parameters.ReviewDays = DAYS,
    report_language: parameters.ReportLanguage = None,
) -> dict[str, Any] | State[dict[str, Any]]:
    """Dub one lesson and write its folder. Returns where it is, what is in it, and what each stage did.

    Where a review is asked for, the run is suspended until it is answered, or ends as "InReview" where nothing could resume it; one that is
    rejected ends as "Rejected".
    """
    started = time.monotonic()
    instead = {"separator": separator, "recogniser": recogniser, "translator": translator, "speech": speech}
    chosen = profile_named(profile, **instead)
    engines = chosen.engines()
    results = open_store(store)
    given = given_terms(terms, results)
    wishes = Wishes(target_language, source_language, voice, captions, loudness, ducking, seed, given, lecturer_voice, review)
    check(engines, wishes)
    place = open_place(publish_to, results) if publish_to else None
    platform = open_kinescope(kinescope) if kinescope else None
    teller = teller_of(webhook, job, _run_id(), source, target_language)
    words = wording(report_language)
    if platform:
        platform.check()
    server = open_gpu_server(gpu_server) if gpu_server else None
    if server and results.working_files is None:
        raise BadSetting(f"store {results.where}: with a GPU server it must be a bucket, which both machines see")
    results.while_waiting(tell_waiting)
    log = StageLog()
    made: Made | None = None
    done: Delivered | None = None
    over: Rejected | Waiting | None = None
    try:
        with announcing(teller) as announcer, watched_by(log), results.scratch() as scratch:
            found = find(source, scratch, media.Limits(max_megabytes, max_hours), results)
            folder = output_folder(output, source, folder_name(found, target_language))
            reviewing = Review(results, found.sha256, target_language, folder, name=found.name)
            # What the GPU server does needs no packages here.
            here = engines.each() if server is None else ()

            def tell() -> Made:
                return story(results, found, engines, wishes, reviewing)

            elsewhere = server and Elsewhere(server, chosen, request_of(found, wishes, name_of_profile(profile), instead, store))
            story_told = elsewhere.then(results, found, tell) if elsewhere else tell
            while over is None:
                wanted = None
                with working_with(here, name_of_profile(profile)), written_down(results, found, target_language, str(folder)):
                    try:
                        made, done = _made_and_delivered(results, found, reviewing, story_told, words, publishes=place is not None)
                        _check_approved(results, reviewing, wishes, made)
                    except ReviewWanted as review_wanted:
                        wanted = review_wanted
                if wanted is None:
                    break
                files = partial(_to_look_at, results, place, source, found, folder, made, done, words)
                try:
                    settle(wanted, results, reviewing, partial(_check_voices, engines.speech), target_language, review_days, files)
                except (Rejected, Waiting) as ended:
                    over = ended
                    if isinstance(ended, Rejected):
                        announce("video_failed", "rejected", error=in_one_line(str(ended)), state=ended.name)
            viewed: dict[str, Any] = {"addresses": {}}
            if over is None:
                assert made is not None
                cost = elsewhere.spent()["cost"] if elsewhere else None
                viewed = _published(results, place, platform, made, found, title, cost, words)
    except BaseException:
        log.stop()  # nothing that runs beside is waited for
        raise
    finally:
        results.close()
        engines.close()
        if server:
            server.close()
    result: dict[str, Any] = {"output_dir": str(folder), "files": done.files if done else {}}
    if done:
        result |= {
            "duration": done.summary["lesson"]["duration"],
            "lines": done.summary["lines"],
            "lines_flagged": done.summary["lines_flagged"],
            "word_error_rate": done.summary["file"]["word_error_rate"],
        }
    if made:
        result |= {"voice": made.lecturer_voice, "edits": as_rows(made.revision)}
    result |= {**viewed, "stages": log.outcomes(), "seconds": round(time.monotonic() - started, 2)}
    if elsewhere:
        result["gpu_server"] = elsewhere.spent()
    if over:
        result["review"] = {"stage": over.stage, "state": over.state, "why": str(over)}
    if webhook:
        result["told"] = announcer.outcomes
    publish_result(result)
    return Completed(name=over.name, message=f"{found.name}: {over}", data=result) if over else result


def _check_approved(store: Store, reviewing: Review, wishes: Wishes, made: Made) -> None:
    """
    Raises:
        ReviewWanted: a voice-over that is to be reviewed.
    """
    if wishes.review == "voiceover":
        content, rows = approval.voiceover_shown(made.timeline, made.inspection.lines, made.render.media)
        approval.check(store, reviewing.lesson, wishes.target_language, "voiceover", content, reviewing.read(), rows)


def _to_look_at(
    store: Store,
    place: Place | None,
    source: str,
    found: Source,
    folder: Path,
    made: Made | None,
    done: Delivered | None,
    words: Wording,
) -> list[dict[str, str]]:
    """What a reviewer may look at and listen to: before there is anything else, the recording."""
    if made is None or done is None:
        return [{"what": "lesson", "address": source}]
    if place:
        addresses = publish_for_review(store, place, made, found, words)
    else:
        names = ("video", "original_audio", "page", "timeline")
        addresses = {name: str(folder / done.files[name]) for name in names if name in done.files}
    return [{"what": what, "address": address} for what, address in addresses.items()]


def _published(
    store: Store,
    place: Place | None,
    platform: Kinescope | None,
    made: Made,
    found: Source,
    title: str | None,
    cost: float | None,
    words: Wording,
) -> dict[str, Any]:
    """Where the lesson can be seen. Whoever waits for it is told."""
    addresses = publish(store, place, made, found, words) if place else {}
    at_kinescope = publish_to_kinescope(store, platform, made, title or sources.file_stem(found.name)) if platform else None
    announce("video_completed", **completed(addresses, made.timeline.target_language, at_kinescope, cost))
    return {"addresses": addresses, **({"kinescope": at_kinescope} if at_kinescope else {})}


def teller_of(webhook: str | None, job: str | None, run: str, source: str, target_language: str) -> Teller:
    """Who is told what becomes of the lesson.

    Raises:
        BadSetting: there is no such webhook.
    """
    block = open_webhook(webhook) if webhook else None
    return Teller(block, webhook or "", job or run, run, sources.name_of(source), target_language)


class Elsewhere:
    """The GPU server as a run uses it: it is woken for what needs it, and for nothing else."""

    def __init__(self, server: GpuServer, profile: Profile, request: dict[str, Any]) -> None:
        self._server, self._profile, self._request = server, profile, request
        self._visits: list[Spent] = spent_before(_run_id())

    def then(self, store: Store, lesson: Source, tell: Callable[[], Made]) -> Callable[[], Made]:
        """The story, told when the server has done its part of it."""

        def told() -> Made:
            left: list[tuple[str, str, str]] = []
            while True:
                with with_packages_of_another(noted_packages(store, self._server.server_id)):
                    plan, _ = imagine(store, lesson.sha256, runs_of(store, lesson.sha256), tell)
                    before, left = (
                        left,
                        [
                            (one.stage, one.state, one.why)
                            for one in plan.stages
                            if one.state != "cached" and self._profile.on_gpu_server(one.works_with)
                        ],
                    )
                    if not left:
                        return tell()
                if left == before:
                    stage, _, why = left[0]
                    raise BadSetting(f"GPU server: it did its part, and yet {stage} isn't done as asked for here: {why}")
                self._visit(store, lesson)

        return told

    def spent(self) -> dict[str, float]:
        return {"seconds": sum(visit.seconds for visit in self._visits), "cost": sum(visit.cost for visit in self._visits)}

    def _visit(self, store: Store, lesson: Source) -> None:
        # Before it is woken: it never sees the file itself.
        here = ingest(store, sha256=lesson.sha256, path=lesson.path, name=lesson.name)
        extract_audio(store, lesson=here, name=lesson.name)
        target = self._request["wishes"]["target_language"]
        self._visits.append(hand_over(self._server, lesson, self._request, target, _run_id()))


def _run_id() -> str:
    context = FlowRunContext.get()
    return str(context.flow_run.id) if context and context.flow_run else ""


def request_of(lesson: Source, wishes: Wishes, profile: str, engines: Mapping[str, str | None], store: str | None) -> dict[str, Any]:
    """What the GPU server is asked for, in plain JSON: `flows.compute_stages` takes it."""
    return {
        "lesson": plain(lesson),
        "wishes": {**wishes._asdict(), "terms": [plain(term) for term in wishes.terms]},
        "profile": profile,
        "engines": dict(engines),
        "store": store or default_store(),
    }


def _made_and_delivered(
    store: Store, found: Source, reviewing: Review, tell: Callable[[], Made], words: Wording, publishes: bool
) -> tuple[Made, Delivered]:
    """Tell the story until nobody changes the lesson's folder meanwhile."""

    def once() -> tuple[Made, Delivered]:
        while True:
            reviewing.look()
            made = tell()
            store.fetch([*delivered(made), *(published(made) if publishes else ())])
            if reviewing.is_up_to_date():
                return made, deliver(store, made, found.name, found.sha256, reviewing.folder, words)

    return computed_whole(store, once)


def computed_whole(store: Store, tell: Callable[[], Told]) -> Told:
    """Tell a story until nothing that it needs turns out damaged."""
    damaged: Counter[str] = Counter()
    while True:
        try:
            return tell()
        except BlobDamaged as blobs:
            # They count as gone from now on: the stage that made one misses and makes it again, the others are cached.
            store.distrust(blobs.sha256s)
            damaged.update(blobs.sha256s)
            if damaged.most_common(1)[0][1] == REPLAYS:
                raise


def story(store: Store, found: Source, engines: Engines, wishes: Wishes, reviewing: Review) -> Made:
    """All stages, from the recording to the measured result."""
    target = wishes.target_language
    lesson = ingest(store, sha256=found.sha256, path=found.path, name=found.name)
    sound = extract_audio(store, lesson=lesson, name=found.name)

    separation = separate.submit(store, sound=sound, separator=engines.separator)
    listener = engines.recogniser.hinted(term.source for term in wishes.terms)
    transcript = transcribe(store, sound=sound, recogniser=listener, language=wishes.source_language, name=found.name)
    _check_spoken(engines.translator, transcript, target)
    stems = separation.result()
    speaking = Speaking(engines.speech)
    listening = _speakers(store, engines, stems, transcript)

    # Who several people are is found out beside the translation, whose budgets then go by the usual voice.
    voice = _voice(wishes, engines.speech, stems, transcript, None) if listening is None else wishes.voice or _usual(engines.speech, target)
    heard = sound if engines.translator.listens else None
    termbase = _terms(store, engines.translator, transcript, wishes)
    translation = translate(
        store,
        transcript=transcript,
        sound=heard,
        translator=engines.translator,
        target=target,
        termbase=termbase,
        pace=_pace(engines, target, voice),
        duration=lesson.duration,
    )
    if wishes.review == "translation":
        _check_translation(store, reviewing, engines.speech, transcript, translation, voice)
    people = None
    if listening is not None:
        people = listening.result()
        voice = _voice(wishes, engines.speech, stems, transcript, people)
    # What a person approved is not reworded.
    rewordings = SHORTER_AT_MOST if wishes.review != "translation" else 0
    for tightening in range(rewordings + 1):
        clips = speaking(store, translation=translation, voice=voice, seed=wishes.seed)
        timeline = fit(store, transcript=transcript, translation=translation, clips=clips, duration=lesson.duration)
        budgets = _budgets(transcript, translation, clips, lesson.duration)
        if not is_known(budgets) or not budgets or not engines.translator.shortens or tightening == rewordings:
            break
        shorter = shorten(
            store, transcript=transcript, translation=translation, translator=engines.translator, termbase=termbase, budgets=budgets
        )
        if is_known(shorter) and shorter == translation:
            break
        translation = shorter

    # A reviewer's changes come last, over what the machine settled on: they change those lines and no other.
    revision = _revised(reviewing, engines.speech, transcript, translation, voice)
    if is_known(revision) and revision.outcomes:
        transcript, translation = revision.transcript, revision.translation
        if revision.to_translate:
            again = retranslate(
                store,
                transcript=transcript,
                sound=heard,
                translator=engines.translator,
                target=target,
                termbase=termbase,
                lines=revision.to_translate,
            )
            translation = _completed(revision, again)
        voice = _voice(wishes, engines.speech, stems, transcript, people)
        clips = speaking(store, translation=translation, voice=voice, seed=wishes.seed)
        timeline = fit(store, transcript=transcript, translation=translation, clips=clips, duration=lesson.duration)

    captions = wishes.captions if base_language(target) == "en" else "sentences"
    captioning = subtitles.submit(
        store,
        transcript=transcript,
        timeline=timeline,
        kind=captions,
        recogniser=engines.recogniser if captions == "words" else None,
    )
    loudness = _loudness(wishes, sound)
    mixed = mix(store, stems=stems, voices=_voices(timeline), duration=timeline.duration, loudness=loudness, ducking=wishes.ducking)
    written = captioning.result()
    rendered = render(store, lesson=lesson, mix=mixed, subtitles=written)
    inspection = inspect(store, rendered=rendered, timeline=timeline, sound=sound, recogniser=engines.recogniser, loudness=loudness)
    made_by = {
        "separation": engines.separator.engine_name,
        "transcription": _heard_by(transcript),
        "translation": engines.translator.engine_name,
        "speech": _spoken_by(timeline),
    }
    return Made(lesson, timeline, written, rendered, inspection, made_by, revision, termbase, _lecturers(voice), mixed)


def _terms(store: Store, translator: Translator, transcript: Transcript, wishes: Wishes) -> Termbase:
    """The lesson's terms: those that were given, and those that a translator finds that reads ahead."""
    read = terms(store, transcript=transcript, translator=translator, target=wishes.target_language) if translator.reads else Termbase()
    return _with_given(read, wishes.terms)


@passes_unknown
def _with_given(read: Termbase, given: tuple[Term, ...]) -> Termbase:
    return with_given(read, given)


@passes_unknown
def _check_spoken(translator: Translator, transcript: Transcript, target: str) -> None:
    _check_pair(translator, transcript.language, target)


def _speakers(store: Store, engines: Engines, stems: Stems, transcript: Transcript) -> Pending[Speakers] | Known | None:
    """Who speaks, where voices are cloned or there is more than one speaker."""
    told_apart = _are_told_apart(transcript)
    several = told_apart if is_known(told_apart) else engines.recogniser.tells_speakers_apart  # a plan may not know yet
    cloned = engines.speech.clones()
    return speakers.submit(store, stems=stems, transcript=transcript, cloned=cloned) if several or cloned != "nobody" else None


@passes_unknown
def _are_told_apart(transcript: Transcript) -> bool:
    return are_told_apart(transcript)


@passes_unknown
def _voice(wishes: Wishes, engine: SpeechEngine, stems: Stems, transcript: Transcript, people: Speakers | None) -> str | Cast:
    return cast(engine, wishes.voice, wishes.target_language, transcript, stems.pitch, people, wishes.lecturer_voice)


@passes_unknown
def _lecturers(voice: str | Cast) -> str:
    return lecturers_voice(voice)


def _usual(engine: SpeechEngine, target: str) -> str:
    return engine.voices(target)[0]


@passes_unknown
def _pace(engines: Engines, target: str, voice: str | Cast) -> float:
    """Characters a second of the voice, where the translator heeds budgets; else another voice would have it translate anew."""
    by_voice = isinstance(voice, str) and engines.translator.heeds_budgets
    return engines.speech.pace(target, str(voice) if by_voice else _usual(engines.speech, target))


@passes_unknown
def _heard_by(transcript: Transcript) -> str:
    return transcript.engine


@passes_unknown
def _spoken_by(timeline: Timeline) -> str:
    return spoken_by(timeline)


@passes_unknown
def _loudness(wishes: Wishes, sound: Recording) -> float:
    """LUFS of the new track."""
    if wishes.loudness == "source":
        return mixing.TARGET_LOUDNESS if sound.loudness is None else sound.loudness
    return wishes.loudness


@passes_unknown
def _voices(timeline: Timeline) -> list[tuple[float, Artifact]]:
    """Start in seconds and clip of each spoken line."""
    return [(line.start, line.clip) for line in timeline.lines if line.clip]


@passes_unknown
def _revised(reviewing: Review, speech: SpeechEngine, transcript: Transcript, translation: Translation, voice: str | Cast) -> Revision:
    """What a reviewer made of the lines.

    Raises:
        BadInput: a change in the lesson's folder can't be read, or a line is to have a voice that there isn't.
    """

    revision = reviewing.revised(transcript, translation, voice if isinstance(voice, str) else "", partial(_check_voices, speech))
    _check_voices(speech, revision)
    return revision


def _check_voices(speech: SpeechEngine, revision: Revision) -> None:
    for voice in dict.fromkeys(line.voice for line in revision.translation.lines if line.voice):
        speech.check(revision.translation.language, voice)


@passes_unknown
def _check_translation(
    store: Store, reviewing: Review, speech: SpeechEngine, transcript: Transcript, translation: Translation, voice: str | Cast
) -> None:
    """
    Raises:
        ReviewWanted: the translation was not approved as it is.
    """
    revision = _revised(reviewing, speech, transcript, translation, voice)
    content, rows = approval.translation_shown(revision)
    language, only_look = translation.language, reviewing.only_look
    approval.check(store, reviewing.lesson, language, "translation", content, reviewing.read(), rows, only_look)


@passes_unknown
def _completed(revision: Revision, again: Translation) -> Translation:
    """The edited translation with the lines that were translated again."""
    return revision.completed(again.lines)


@passes_unknown
def _budgets(transcript: Transcript, translation: Translation, clips: Clips, duration: float) -> dict[str, int]:
    """Greatest number of characters for each line whose clip is too long for its place."""
    clip_of = {clip.id: clip for clip in clips.lines}
    spoken = [line for line in transcript.utterances if line.id in clip_of]
    natural = [placement.Natural(line.start, line.end, clip_of[line.id].duration) for line in spoken]
    limits = placement.budgets(natural, [len(clip_of[line.id].text) for line in spoken], duration)
    return {spoken[position].id: limit for position, limit in limits.items()}


def given_terms(source: str | None, store: Store) -> tuple[Term, ...]:
    """A person's terms.

    Raises:
        BadInput: there is no such file, or it is no table of terms.
    """
    return () if source is None else from_table(given_files.content(source, LARGEST_FILE, store), source)


def find(source: str, scratch: Path, limits: media.Limits, store: Store) -> Source:
    """The recording as a local file that is within the limits: everything that can be refused is refused here, before any work.

    Args:
        store: whose account counts for a recording in a bucket.
    """
    name = sources.name_of(source)
    path = given_files.local_copy(source, scratch, limits, store, advance_download)
    media.check_readable(path, name)
    media.check_size(path.stat().st_size, name, limits)
    duration = media.probe(path, name).duration
    media.check_duration(duration, name, limits)
    return Source(path=str(path.absolute()), name=name, sha256=file_digest(path), size=path.stat().st_size, duration=duration)


def check(engines: Engines, wishes: Wishes) -> None:
    """Refuse wishes that can't come true."""
    for one in checks(engines, wishes):
        one()


def checks(engines: Engines, wishes: Wishes) -> list[Callable[[], None]]:
    """Each raises BadInput for what can't come true."""
    return [
        partial(_check_source_language, engines, wishes),
        partial(engines.speech.check, wishes.target_language, wishes.voice),
        partial(_check_loudness, wishes),
        partial(_check_translator, engines, wishes),
    ]


def _check_source_language(engines: Engines, wishes: Wishes) -> None:
    if wishes.source_language is not None:
        if not is_tag(wishes.source_language):
            raise UnsupportedLanguage(f"source language {wishes.source_language}: {engines.recogniser.engine_name} doesn't recognise it")
        _check_pair(engines.translator, wishes.source_language, wishes.target_language)


def _check_loudness(wishes: Wishes) -> None:
    if wishes.loudness != "source" and not mixing.LOUDNESS_RANGE[0] <= wishes.loudness <= mixing.LOUDNESS_RANGE[1]:
        raise BadSetting(f"loudness {wishes.loudness:g}: must be from {mixing.LOUDNESS_RANGE[0]:g} to {mixing.LOUDNESS_RANGE[1]:g} LUFS")


def _check_translator(engines: Engines, wishes: Wishes) -> None:
    if reason := engines.translator.refusal(wishes.source_language or "en", wishes.target_language):
        raise UnsupportedLanguage(reason)


def _check_pair(translator: Translator, source: str, target: str) -> None:
    if base_language(source) == base_language(target):
        raise UnsupportedLanguage(f"the lesson is in {name_of(source)} already: nothing to dub into {target}")
    if reason := translator.refusal(source, target):
        raise UnsupportedLanguage(reason)


def output_folder(output: str | None, source: str, name: str) -> Path:
    """The folder for a result: where it is wanted, else one of this name beside a local source, in the working folder for an address."""
    if output:
        return Path(os.path.abspath(Path(output).expanduser()))
    parent = Path.cwd() if sources.is_address(source) else sources.local_path(source).absolute().parent
    return parent / name


def folder_name(found: Source, language: str) -> str:
    """Of a lesson that is given none."""
    return f"{sources.file_stem(found.name)}.{language}"
