"""Stage 11: what was made, measured."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor

from blocks.store import Store
from blocks.transcription import Recogniser
from dubbing import audio, inspection, mixing, report, verification
from dubbing.documents import lines_table, timeline_document
from dubbing.edits import spoken_text
from dubbing.lesson import FileChecks, Inspection, LineChecks, Noun, PlacedLine, Recording, Render, Timeline
from tasks.lines import line_by_line
from tasks.progress import publish_table
from tasks.stage import stage

VERSION = 1


class _Heard(Noun):
    """What the recogniser heard in a clip, as it is cached."""

    text: str


@stage(version=VERSION, returns=Inspection, opens=("rendered.media", "sound"), per_line=True)
def inspect(store: Store, rendered: Render, timeline: Timeline, sound: Recording, recogniser: Recogniser, loudness: float) -> Inspection:
    """Transcribe each line again from its final clip, and measure the delivered file.

    Args:
        sound: the original, to draw its levels beside the new ones and compare lengths.
        loudness: LUFS that was asked for.
    """

    def hear(line: PlacedLine) -> _Heard:
        assert line.clip is not None
        samples = audio.read_span(store.path_of(line.clip), 0.0, line.end - line.start, recogniser.SAMPLE_RATE)
        return _Heard(text=recogniser.hear(samples, timeline.target_language))

    spoken = [line for line in timeline.lines if line.clip]
    heard = line_by_line(
        store,
        "inspect",
        VERSION,
        spoken,
        lambda line: [line.id],
        {"language": timeline.target_language, "recogniser": recogniser},
        lambda line: {"clip": line.clip},
        hear,
        _Heard,
    )
    heard_of = {line.id: result.text for line, result in zip(spoken, heard, strict=True)}
    errors = {line.id: _word_errors(line, heard_of[line.id], timeline.target_language) for line in spoken}
    checks = tuple(_line_checks(line, heard_of.get(line.id), errors.get(line.id)) for line in timeline.lines)
    with store.scratch() as folder, ThreadPoolExecutor(1) as beside:
        measuring = beside.submit(inspection.measure, store.path_of(rendered.media), folder / "dubbed.wav")  # ffmpeg's own process
        original = inspection.levels(store.path_of(sound.media))
        measured = measuring.result()
        dubbed = inspection.levels(folder / "dubbed.wav")
    file = _file_checks(timeline, measured, sound.duration, loudness, list(errors.values()))
    document = timeline_document("", timeline, checks)
    plots = report.plots(document, original, dubbed)
    table = lines_table(document)
    publish_table("lines", table.to_dict("records"), f"{len(table)} lines, {int(table['flags'].astype(bool).sum())} to look at")
    return Inspection(
        lines=checks,
        file=file,
        plots={name: store.put_bytes(drawn, "image/svg+xml") for name, drawn in sorted(plots.items())},
        table=store.put_bytes(table.to_csv(index=False).encode(), "text/csv"),
    )


def _word_errors(line: PlacedLine, heard: str, language: str) -> verification.WordErrors:
    """Of what was heard against the text or, where words are respelt for the voice, against what the voice was given."""
    wordings = dict.fromkeys((line.text, spoken_text(line.text, line.say, language)))
    return min((verification.word_errors(wording, heard, language) for wording in wordings), key=lambda errors: errors.rate)


def _line_checks(line: PlacedLine, heard: str | None, errors: verification.WordErrors | None) -> LineChecks:
    placed, original = line.end - line.start, line.source_end - line.source_start
    reading_speed = len(line.text) / placed if placed > 0 else 0.0
    return LineChecks(
        id=line.id,
        heard=heard,
        word_error_rate=None if errors is None else round(errors.rate, 4),
        duration_ratio=round(placed / original, 3) if original > 0 else 0.0,
        drift=round(line.drift, 3),
        rate=line.rate,
        reading_speed=round(reading_speed, 1),
        flags=verification.line_flags(line, errors, reading_speed) if line.clip else (),
    )


def _file_checks(
    timeline: Timeline, measured: inspection.Measured, lesson_duration: float, loudness: float, errors: list[verification.WordErrors]
) -> FileChecks:
    words = sum(line.words for line in errors)
    spoken = [line for line in timeline.lines if line.clip]
    overlaps = verification.overlaps(timeline.lines)
    flags = []
    if abs(measured.integrated_loudness - loudness) > verification.LOUDNESS_TOLERANCE:
        flags.append(f"loudness {measured.integrated_loudness:.1f} LUFS, asked for {loudness:.1f}")
    if measured.true_peak > mixing.HIGHEST_TRUE_PEAK:
        flags.append(f"true peak {measured.true_peak:.1f} dBTP, the limit is {mixing.HIGHEST_TRUE_PEAK:.1f}")
    if abs(measured.duration - timeline.duration) > verification.LENGTH_TOLERANCE:
        flags.append(f"the new track is {measured.duration:.3f} s long instead of {timeline.duration:.3f}")
    if overlaps:
        flags.append(f"{overlaps} lines overlap")
    if timeline.duration > lesson_duration + verification.LENGTH_TOLERANCE:
        flags.append(f"the last line ends {timeline.duration - lesson_duration:.1f} s after the picture")
    return FileChecks(
        integrated_loudness=measured.integrated_loudness,
        loudness_target=loudness,
        true_peak=measured.true_peak,
        duration=round(measured.duration, 4),
        lesson_duration=lesson_duration,
        overlaps=overlaps,
        word_error_rate=round(sum(line.errors for line in errors) / words, 4) if words else None,
        largest_drift=max((line.drift for line in spoken), key=abs, default=0.0),
        largest_rate=max((line.rate for line in spoken), default=1.0),
        flags=tuple(flags),
    )
