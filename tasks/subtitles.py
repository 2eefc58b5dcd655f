"""Stage 9: captions in both languages."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Literal

from blocks.store import Store
from blocks.transcription import Recogniser
from dubbing import audio
from dubbing import subtitles as captions
from dubbing.lesson import Noun, PlacedLine, SubtitleFiles, Subtitles, Timeline, Transcript, Word
from tasks.lines import line_by_line
from tasks.stage import stage

VERSION = 1
MEDIA_TYPES = {"srt": "application/x-subrip", "vtt": "text/vtt", "ass": "text/x-ssa"}


class _Words(Noun):
    """When each word of a clip is said, from the clip's start, as it is cached."""

    words: tuple[Word, ...]


@stage(version=VERSION, returns=Subtitles)
def subtitles(
    store: Store, transcript: Transcript, timeline: Timeline, kind: Literal["sentences", "words"], recogniser: Recogniser | None
) -> Subtitles:
    """Captions of the translation at the placed times and of the transcript at its own.

    Args:
        kind: whole sentences, or words as they are said (the translation's words are aligned with its clips for that).
        recogniser: aligns words; None for sentences.
    """
    if kind == "words":
        assert recogniser is not None
        cues = captions.word_cues(timeline, _aligned_words(store, timeline, recogniser))
    else:
        cues = captions.cues_of_timeline(timeline)
    return Subtitles(
        target=_files(store, cues, timeline.target_language),
        source=_files(store, captions.cues_of_transcript(transcript, timeline.duration), transcript.language),
    )


def _aligned_words(store: Store, timeline: Timeline, recogniser: Recogniser) -> Mapping[str, Sequence[Word]]:
    def align(line: PlacedLine) -> _Words:
        assert line.clip is not None
        samples = audio.read_span(store.path_of(line.clip), 0.0, line.end - line.start, recogniser.SAMPLE_RATE)
        return _Words(words=tuple(recogniser.align(samples, line.text, timeline.target_language)))

    spoken = [line for line in timeline.lines if line.clip]
    aligned = line_by_line(
        store,
        "subtitles",
        VERSION,
        spoken,
        lambda line: [line.id],
        {"language": timeline.target_language, "recogniser": recogniser},
        lambda line: {"clip": line.clip, "text": line.text},
        align,
        _Words,
    )
    return {
        line.id: [word.model_copy(update={"start": word.start + line.start, "end": word.end + line.start}) for word in result.words]
        for line, result in zip(spoken, aligned, strict=True)
    }


def _files(store: Store, cues: Sequence[captions.Cue], language: str) -> SubtitleFiles:
    with store.scratch() as folder:
        written = captions.write(cues, language, folder, "subtitles")
        return SubtitleFiles(language=language, **{kind: store.put_file(path, MEDIA_TYPES[kind]) for kind, path in written.items()})
