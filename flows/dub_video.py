"""Dub one lesson: a recording in one language goes in, the same lesson in another comes out.

The story, stage by stage: take the recording into the store; take its sound; take the voice apart from the background while the words are
recognised; translate them line by line; speak each line; place all lines on the timeline (a line that is too long for its place is said
shorter, twice at most); mix them over the background; write the subtitles; put picture, tracks and subtitles together; measure the result.

Every stage is computed once for the same inputs: running the flow again does only what changed, after a crash only what was not finished.
"""

from __future__ import annotations

import os
import time
from collections import Counter
from pathlib import Path
from typing import Annotated, Any, Literal, NamedTuple

from prefect import flow
from pydantic import Field

from blocks.separation import SEPARATORS, Separator
from blocks.speech import SPEECH_ENGINES, SpeechEngine
from blocks.store import Store, file_digest
from blocks.transcription import RECOGNISERS, Recogniser
from blocks.translation import TRANSLATORS, Translator
from dubbing import media, mixing, placement, sources
from dubbing.errors import BadSetting, BlobDamaged, UnsupportedLanguage
from dubbing.languages import base_language, is_tag, name_of
from dubbing.lesson import Clips, Source, Transcript, Translation
from tasks.deliver import Made, deliver
from tasks.extract_audio import extract_audio
from tasks.fit import fit
from tasks.ingest import ingest
from tasks.inspect import inspect
from tasks.mix import mix
from tasks.render import render
from tasks.separate import separate
from tasks.shorten import shorten
from tasks.stage import StageLog, advance_download, watched_by
from tasks.subtitles import subtitles
from tasks.synthesize import synthesize
from tasks.transcribe import transcribe
from tasks.translate import translate

SHORTER_AT_MOST = 2  # times a line that doesn't fit is said shorter
REPLAYS = 3  # times the same blob may turn out damaged before the store is given up


class Engines(NamedTuple):
    separator: Separator
    recogniser: Recogniser
    translator: Translator
    speech: SpeechEngine

    def close(self) -> None:
        for engine in self:
            engine.close()


class Wishes(NamedTuple):
    """What was asked for, checked."""

    target_language: str
    source_language: str | None
    voice: str | None
    captions: Literal["sentences", "words"]
    loudness: float | Literal["source"]
    ducking: float
    seed: int


@flow(name="dub-video")
def dub_video(
    source: Annotated[str, Field(description="Path or http(s) address of the lesson.")],
    target_language: Annotated[str, Field(description="BCP 47 tag of the language to dub into.")] = "en",
    source_language: Annotated[str | None, Field(description="BCP 47 tag; detected when empty.")] = None,
    voice: Annotated[str | None, Field(description="Name of a voice; chosen by the lecturer's pitch when empty.")] = None,
    translator: Annotated[
        Literal["llama", "whisper"], Field(description="llama: a small language model. whisper: no further weights, into English only.")
    ] = "llama",
    captions: Annotated[
        Literal["sentences", "words"], Field(description="English captions of whole sentences, or of the words as they are said.")
    ] = "sentences",
    loudness: Annotated[
        float | Literal["source"], Field(description="LUFS of the new track, or 'source' for the original's.")
    ] = mixing.TARGET_LOUDNESS,
    ducking: Annotated[float, Field(ge=0, le=60, description="dB the background goes down under speech.")] = mixing.DUCKING,
    seed: Annotated[int, Field(ge=0, description="For engines that read differently each time.")] = 0,
    output: Annotated[str | None, Field(description="Folder for the result; beside the lesson when empty.")] = None,
    store: Annotated[str | None, Field(description="Folder where results are kept; COURSEDUB_STORE when empty.")] = None,
    max_megabytes: Annotated[float, Field(gt=0)] = media.Limits().megabytes,
    max_hours: Annotated[float, Field(gt=0)] = media.Limits().hours,
) -> dict[str, Any]:
    """Dub one lesson and write its folder. Returns where it is, what is in it, and what each stage did."""
    started = time.monotonic()
    engines = Engines(SEPARATORS["spleeter"](), RECOGNISERS["faster-whisper"](), TRANSLATORS[translator](), SPEECH_ENGINES["kokoro"]())
    wishes = Wishes(target_language, source_language, voice, captions, loudness, ducking, seed)
    _check(engines, wishes)
    results = Store(folder=store or default_store())
    log = StageLog()
    try:
        with watched_by(log), results.scratch() as scratch:
            found = _find(source, scratch, media.Limits(max_megabytes, max_hours))
            stem = sources.file_stem(found.name)
            folder = Path(output).expanduser() if output else _beside(source, stem, target_language)
            damaged: Counter[str] = Counter()
            while True:
                try:
                    files = deliver(results, _story(results, found, engines, wishes), found.name, stem, folder)
                    break
                except BlobDamaged as blob:
                    # It was taken out of the store: the stage that made it misses now and makes it again, the others are cached.
                    damaged[blob.sha256] += 1
                    if damaged[blob.sha256] == REPLAYS:
                        raise
    finally:
        engines.close()
    return {
        "output_dir": str(folder.absolute()),
        "files": files,
        "stages": log.outcomes(),
        "seconds": round(time.monotonic() - started, 2),
    }


def _story(store: Store, found: Source, engines: Engines, wishes: Wishes) -> Made:
    """All stages, from the recording to the measured result."""
    lesson = ingest(store, sha256=found.sha256, path=found.path, name=found.name)
    sound = extract_audio(store, lesson=lesson, name=found.name)

    separation = separate.submit(store, sound=sound, separator=engines.separator)
    transcript = transcribe(store, sound=sound, recogniser=engines.recogniser, language=wishes.source_language, name=found.name)
    _check_pair(engines.translator, transcript.language, wishes.target_language)
    stems = separation.result()
    voice = wishes.voice or engines.speech.default_voice(wishes.target_language, stems.pitch)

    translation = translate(store, transcript=transcript, sound=sound, translator=engines.translator, target=wishes.target_language)
    for tightening in range(SHORTER_AT_MOST + 1):
        clips = synthesize(store, translation=translation, engine=engines.speech, voice=voice, seed=wishes.seed)
        timeline = fit(store, transcript=transcript, translation=translation, clips=clips, duration=lesson.duration)
        budgets = _budgets(transcript, translation, clips, lesson.duration)
        if not budgets or not engines.translator.shortens or tightening == SHORTER_AT_MOST:
            break
        shorter = shorten(store, transcript=transcript, translation=translation, translator=engines.translator, budgets=budgets)
        if shorter == translation:
            break
        translation = shorter

    captions = wishes.captions if base_language(wishes.target_language) == "en" else "sentences"
    captioning = subtitles.submit(
        store,
        transcript=transcript,
        timeline=timeline,
        kind=captions,
        recogniser=engines.recogniser if captions == "words" else None,
    )
    loudness = mixing.TARGET_LOUDNESS if wishes.loudness == "source" and sound.loudness is None else wishes.loudness
    target_loudness = sound.loudness if loudness == "source" else loudness
    mixed = mix(
        store,
        stems=stems,
        voices=[(line.start, line.clip) for line in timeline.lines if line.clip],
        duration=timeline.duration,
        loudness=target_loudness,
        ducking=wishes.ducking,
    )
    written = captioning.result()
    rendered = render(store, lesson=lesson, mix=mixed, subtitles=written)
    inspection = inspect(store, rendered=rendered, timeline=timeline, sound=sound, recogniser=engines.recogniser, loudness=target_loudness)
    made_by = {
        "separation": engines.separator.engine_name,
        "transcription": engines.recogniser.engine_name,
        "translation": engines.translator.engine_name,
        "speech": f"{engines.speech.engine_name}, voice {voice}",
    }
    return Made(lesson, timeline, written, rendered, inspection, made_by)


def _budgets(transcript: Transcript, translation: Translation, clips: Clips, duration: float) -> dict[str, int]:
    """Greatest number of characters for each line whose clip is too long for its place."""
    clip_of = {clip.id: clip for clip in clips.lines}
    spoken = [line for line in transcript.utterances if line.id in clip_of]
    natural = [placement.Natural(line.start, line.end, clip_of[line.id].duration) for line in spoken]
    limits = placement.budgets(natural, [len(clip_of[line.id].text) for line in spoken], duration)
    return {spoken[position].id: limit for position, limit in limits.items()}


def _find(source: str, scratch: Path, limits: media.Limits) -> Source:
    """The recording as a local file that is within the limits: everything that can be refused is refused here, before any work."""
    name = sources.name_of(source)
    local = not sources.is_address(source)
    path = sources.local_path(source) if local else sources.fetch(source, scratch, limits, advance_download)
    media.check_readable(path, name)
    media.check_size(path.stat().st_size, name, limits)
    media.check_duration(media.probe(path, name).duration, name, limits)
    return Source(path=str(path.absolute()), name=name, sha256=file_digest(path), size=path.stat().st_size)


def _check(engines: Engines, wishes: Wishes) -> None:
    """Refuse wishes that can't come true."""
    if wishes.source_language is not None:
        if not is_tag(wishes.source_language):
            raise UnsupportedLanguage(f"source language {wishes.source_language}: faster-whisper doesn't recognise it")
        _check_pair(engines.translator, wishes.source_language, wishes.target_language)
    engines.speech.check(wishes.target_language, wishes.voice)
    if wishes.loudness != "source" and not mixing.LOUDNESS_RANGE[0] <= wishes.loudness <= mixing.LOUDNESS_RANGE[1]:
        raise BadSetting(f"loudness {wishes.loudness:g}: must be from {mixing.LOUDNESS_RANGE[0]:g} to {mixing.LOUDNESS_RANGE[1]:g} LUFS")
    if reason := engines.translator.refusal(wishes.source_language or "en", wishes.target_language):
        raise UnsupportedLanguage(reason)


def _check_pair(translator: Translator, source: str, target: str) -> None:
    if base_language(source) == base_language(target):
        raise UnsupportedLanguage(f"the lesson is in {name_of(source)} already: nothing to dub into {target}")
    if reason := translator.refusal(source, target):
        raise UnsupportedLanguage(reason)


def _beside(source: str, stem: str, language: str) -> Path:
    """The default output folder: beside a local lesson, in the working folder for an address."""
    parent = Path.cwd() if sources.is_address(source) else sources.local_path(source).absolute().parent
    return parent / f"{stem}.{language}"


def default_store() -> str:
    """COURSEDUB_STORE, else a folder in the user's cache."""
    cache = os.environ.get("XDG_CACHE_HOME") or "~/.cache"
    return os.environ.get("COURSEDUB_STORE") or f"{cache}/coursedub/store"
