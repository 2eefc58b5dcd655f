"""The nouns of the pipeline: what a lesson, an utterance, a clip and a timeline are.

All are frozen pydantic models. Seconds are floats counted from the start of the lesson (the earliest start of any of its streams),
languages are BCP 47 tags. Anything large is an `Artifact`: a reference into the store, never the bytes.
"""

from __future__ import annotations

import hashlib
from typing import Any, ClassVar

from pydantic import BaseModel, ConfigDict


class Noun(BaseModel):
    """Base of all nouns: immutable, and no field that nobody declared."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    counted_if_set: ClassVar[frozenset[str]] = frozenset()
    """Fields that came later, None by default: while they are None they count for nothing in cache keys (`dubbing.keys`)."""


class Artifact(Noun):
    """A stored file, named by its content."""

    sha256: str
    size: int  # bytes
    media_type: str

    @property
    def address(self) -> str:
        """Where the file lies in a store, relative to the store's root."""
        return f"blobs/{self.sha256[:2]}/{self.sha256}"


class Source(Noun):
    """A recording that was found, is within the limits, and can be opened: what `ingest` starts from."""

    path: str
    name: str  # what a person calls it: the file's name without folder
    sha256: str
    size: int  # bytes
    duration: float  # seconds, as the container says


class Picture(Noun):
    """The video stream that will be copied."""

    stream: int  # index in the container
    codec: str
    width: int
    height: int
    start: float  # seconds from the lesson's start


class Sound(Noun):
    """The audio stream that will be dubbed."""

    stream: int
    codec: str
    channels: int
    sample_rate: int
    start: float


class Lesson(Noun):
    """A checked recording."""

    media: Artifact
    container: str
    duration: float  # seconds from the earliest stream start to the latest stream end
    picture: Picture | None
    sound: Sound
    has_chapters: bool


class Recording(Noun):
    """48 kHz float32 WAV, one or two channels, exactly as long as the lesson."""

    media: Artifact
    duration: float
    channels: int
    loudness: float | None  # LUFS, None when unmeasurable


class Stems(Noun):
    """The recording taken apart: `vocals` + `background` = the recording, sample by sample."""

    vocals: Recording
    background: Recording
    pitch: float | None  # Hz, median of the voice; None when it can't be told


class Word(Noun):
    counted_if_set: ClassVar[frozenset[str]] = frozenset({"speaker"})

    text: str
    start: float
    end: float
    confidence: float  # probability, 0 to 1
    speaker: str | None = None  # a label that is the same throughout a recording; None: nobody has told speakers apart


class Utterance(Noun):
    """A sentence, or a part of a long one, of one speaker."""

    id: str
    text: str
    start: float
    end: float
    confidence: float
    speaker: str | None = None
    words: tuple[Word, ...] = ()

    @staticmethod
    def id_of(text: str, start: float) -> str:
        """A stable id from content and place: the same words at the same time are the same utterance, whoever recognised them."""
        return hashlib.sha256(f"utterance\0{round(start * 1000)}\0{text}".encode()).hexdigest()[:10]


class Transcript(Noun):
    language: str
    utterances: tuple[Utterance, ...]
    engine: str


class Reference(Noun):
    """Some seconds of the lesson that a voice is cloned from: mono WAV."""

    media: Artifact
    start: float  # seconds into the lesson
    end: float
    language: str  # that is spoken in it


class Speaker(Noun):
    """Somebody who speaks in the lesson."""

    name: str  # as the lines have it; "" where nobody told speakers apart
    seconds: float  # of the lesson that the speaker's lines take
    pitch: float | None  # Hz, median; None when it can't be told
    reference: Reference | None  # None: not asked for, or nothing that will do


class Speakers(Noun):
    speakers: tuple[Speaker, ...]  # who speaks most comes first
    lines: dict[str, Reference]  # of lines that can be cloned from their own sound, by line id; empty when not asked for


class Voice(Noun):
    """A voice of an engine; with a reference it is cloned from that."""

    name: str
    reference: Reference | None = None


class Cast(Noun):
    """Who says what, and with which voices. Lines of no known speaker are those of the speaker ""."""

    speaker_of: dict[str, str]  # by line id
    voices: dict[str, dict[str, Voice]]  # by engine, then by speaker
    lines: dict[str, dict[str, Voice]]  # by engine, then by line id: voices for single lines

    def voice(self, engine: str, line: str) -> Voice:
        own = self.lines.get(engine, {}).get(line)
        return own or self.voices[engine][self.speaker_of.get(line, "")]


class Term(Noun):
    """A word or phrase of a lesson that is to be translated in one way."""

    source: str
    translation: str
    note: str = ""
    certain: bool = False  # a person says so


class Termbase(Noun):
    """What reading a whole lesson first has told: what it is about, and its terms."""

    summary: str = ""
    terms: tuple[Term, ...] = ()


class TranslatedLine(Noun):
    """One utterance in the target language. `text` is empty when the words are said with `said_with`, or when there is no translation."""

    id: str  # the utterance's
    text: str
    said_with: str | None = None
    flags: tuple[str, ...] = ()
    attempts: int = 1  # requests in which a model was asked for it
    rung: str = ""  # of the recovery ladder that gave it (`dubbing.translating.RUNGS`)
    model: str = ""  # that gave it
    variants: tuple[str, ...] = ()  # other wordings, the shortest first
    voice: str | None = None  # a person's choice for this line; None: the run's voice
    say: dict[str, str] = {}  # how words are pronounced, respelt: what the voice is given instead of the word
    edited: bool = False  # a person has changed it: its words stand, whatever they cost in time


class Translation(Noun):
    language: str
    lines: tuple[TranslatedLine, ...]
    engine: str


class Clip(Noun):
    """One synthesised utterance: mono WAV at the engine's own sample rate, silence at its ends trimmed."""

    id: str  # the utterance's
    text: str
    media: Artifact
    duration: float
    engine: str
    voice: str
    seed: int | None
    flags: tuple[str, ...] = ()
    cloned_from: tuple[float, float] | None = None  # seconds of the lesson, when the voice is a clone
    instead_of: str | None = None  # why the engine before this one in a chain did not speak it


class Clips(Noun):
    lines: tuple[Clip, ...]
    refused: dict[str, str]  # why there is no clip, by line id


class PlacedLine(Noun):
    """A line on the timeline. `clip` is the clip as it will be heard: stretched, at 48 kHz."""

    id: str
    source_text: str
    text: str
    source_start: float
    source_end: float
    start: float
    end: float
    rate: float
    overflow: float  # seconds by which the line ends after the next one should start, or after the lesson
    engine: str
    voice: str
    speaker: str | None
    clip: Artifact | None  # None: nothing is said
    cloned_from: tuple[float, float] | None = None
    instead_of: str | None = None
    said_with: str | None = None  # the line whose words say this one too
    flags: tuple[str, ...] = ()
    say: dict[str, str] = {}
    edited: bool = False
    attempts: int = 1  # as of the translated line, likewise `rung` and `model`
    rung: str = ""
    model: str = ""

    @property
    def drift(self) -> float:
        """Seconds by which the line starts late (negative: early)."""
        return self.start - self.source_start


class Timeline(Noun):
    """Clips placed: the one truth that mixing, subtitles and the report read."""

    source_language: str
    target_language: str
    duration: float  # of the dubbed track; longer than the lesson only when the last lines run over
    lines: tuple[PlacedLine, ...]


class Mix(Noun):
    """The finished track, encoded as it is delivered: AAC in MP4."""

    media: Artifact
    duration: float
    channels: int
    gain: float  # dB applied to the whole mix
    limited: float  # largest reduction by the limiter, dB


class SubtitleFiles(Noun):
    """Subtitles of one language."""

    language: str
    srt: Artifact
    vtt: Artifact
    ass: Artifact


class Subtitles(Noun):
    target: SubtitleFiles
    source: SubtitleFiles


class Render(Noun):
    """What is delivered to a viewer."""

    media: Artifact
    container: str  # "mp4", or "matroska" when MP4 can't hold the picture's codec
    original_sound: Artifact
    thumbnail: Artifact | None
    notes: tuple[str, ...] = ()


class LineChecks(Noun):
    """What was measured on one line as it is heard."""

    id: str
    heard: str | None  # the clip transcribed again
    word_error_rate: float | None
    duration_ratio: float  # placed duration to the source utterance's
    drift: float
    rate: float
    reading_speed: float  # characters a second
    flags: tuple[str, ...] = ()


class FileChecks(Noun):
    """What was measured on the delivered file."""

    integrated_loudness: float  # LUFS
    loudness_target: float  # LUFS
    true_peak: float  # dBTP
    duration: float
    lesson_duration: float
    overlaps: int
    word_error_rate: float | None  # over all lines
    largest_drift: float
    largest_rate: float
    flags: tuple[str, ...] = ()


class Inspection(Noun):
    lines: tuple[LineChecks, ...]
    file: FileChecks
    plots: dict[str, Artifact]
    table: Artifact  # CSV, a row a line


def plain(noun: BaseModel) -> dict[str, Any]:
    """The noun as JSON values."""
    return noun.model_dump(mode="json")
