"""Which seconds a voice is cloned from: long enough, clean, at the speaker's usual level, and nobody else's."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from dubbing.lesson import Utterance, Word
from dubbing.references import CLEAN, FRAME, LONGEST, SHORTEST, Levels, best_span, levels, line_span

RATE = 48_000
VOICE, ROOM = -20.0, -70.0  # dBFS


def line(start: float, end: float, speaker: str | None = None, confidence: float = 0.9, words: int = 0) -> Utterance:
    step = (end - start) / max(1, words)
    said = tuple(Word(text="a", start=start + n * step, end=start + (n + 1) * step, confidence=1.0) for n in range(words))
    return Utterance(id=f"u{start:g}", text="a", start=start, end=end, confidence=confidence, speaker=speaker, words=said)


def sound(seconds: float, parts: Mapping[tuple[float, float], float], floor: float = ROOM) -> Levels:
    """A recording with these levels (dBFS) between these seconds."""
    power = np.full(round(seconds / FRAME), 10 ** (floor / 10))
    for (start, end), level in parts.items():
        power[round(start / FRAME) : round(end / FRAME)] = 10 ** (level / 10)
    return Levels(power, np.sqrt(2 * power))


def speech(lines: Sequence[Utterance], seconds: float, **levels_of: float) -> Levels:
    return sound(seconds, {(one.start, one.end): levels_of.get(one.id, VOICE) for one in lines})


def quiet(seconds: float) -> Levels:
    return sound(seconds, {})


def span(lines: Sequence[Utterance], voice: Levels, background: Levels, speaker: str | None = None) -> tuple[float, float] | None:
    found = best_span(lines, speaker, voice, background)
    return None if found is None else (round(found.start, 2), round(found.end, 2))


def test_about_ten_seconds_are_taken() -> None:
    lines = [line(0.5, 4.0), line(10.0, 20.0), line(30.0, 55.0)]
    assert span(lines, speech(lines, 60), quiet(60)) == (9.95, 20.15)


def test_neighbouring_lines_are_taken_together() -> None:
    lines = [line(1.0, 4.0), line(4.5, 8.0), line(8.4, 11.0), line(20.0, 23.5)]
    assert span(lines, speech(lines, 30), quiet(30)) == (0.95, 11.15)


def test_over_a_long_pause_they_are_not() -> None:
    lines = [line(1.0, 5.5), line(9.0, 13.0)]
    assert span(lines, speech(lines, 30), quiet(30)) == (0.95, 5.65)


def test_of_a_line_that_is_too_long_the_beginning_is_taken_up_to_a_word() -> None:
    lines = [line(2.0, 50.0, words=48)]
    assert span(lines, speech(lines, 60), quiet(60)) == (1.95, 12.15)


def test_music_beside_it_makes_a_part_worse() -> None:
    lines = [line(0.0, 10.0), line(20.0, 30.0)]
    assert span(lines, speech(lines, 40), sound(40, {(0.0, 10.0): -25.0})) == (19.95, 30.15)


def test_noise_in_its_pauses_makes_a_part_worse() -> None:
    lines = [line(1.0, 10.0), line(21.0, 30.0)]
    voice = sound(40, {(0.0, 12.0): -30.0, (1.0, 10.0): VOICE, (21.0, 30.0): VOICE})
    assert span(lines, voice, quiet(40)) == (20.95, 30.15)


def test_a_part_at_the_usual_level_is_preferred() -> None:
    lines = [line(0.0, 10.0), line(20.0, 30.0), line(40.0, 48.0)]
    assert span(lines, speech(lines, 60, u0=-6.0), quiet(60)) == (19.95, 30.15)


def test_clipped_sound_is_not_taken() -> None:
    lines = [line(0.0, 10.0), line(20.0, 26.0)]
    voice = speech(lines, 30)
    voice.peak[100:130] = 1.0
    assert span(lines, voice, quiet(30)) == (19.95, 26.15)


def test_what_the_recogniser_is_unsure_of_is_hardly_taken() -> None:
    lines = [line(0.0, 10.0, confidence=0.2), line(20.0, 29.0)]
    assert span(lines, speech(lines, 30), quiet(30)) == (19.95, 29.15)


def test_each_speaker_has_parts_of_its_own() -> None:
    lines = [line(0.0, 8.0, "A"), line(9.0, 16.0, "B"), line(17.0, 20.5, "A")]
    assert span(lines, speech(lines, 30), quiet(30), "A") == (0.0, 8.15)
    assert span(lines, speech(lines, 30), quiet(30), "B") == (8.95, 16.15)


def test_a_part_that_another_speaks_into_is_never_taken() -> None:
    lines = [line(0.0, 10.0, "A"), line(9.0, 12.0, "B"), line(20.0, 24.0, "A")]
    assert span(lines, speech(lines, 30), quiet(30), "A") == (19.95, 24.15)


@pytest.mark.parametrize(
    ("lines", "level"),
    [([], VOICE), ([line(0.0, 2.5)], VOICE), ([line(0.0, 10.0)], -50.0), ([line(0.0, 1.0), line(5.0, 6.5)], VOICE)],
    ids=["no lines", "too short", "too quiet", "too short together"],
)
def test_where_nothing_will_do_there_is_none(lines: list[Utterance], level: float) -> None:
    voice = sound(20, {(one.start, one.end): level for one in lines})
    assert best_span(lines, None, voice, quiet(20)) is None


def test_a_line_is_cloned_from_itself_only_when_it_is_long_and_clean() -> None:
    lines = [line(1.0, 5.0), line(6.0, 8.0), line(9.0, 14.0, "B"), line(13.5, 19.0)]
    voice = speech(lines, 30)
    assert line_span(lines, 0, voice, quiet(30)) is not None
    assert line_span(lines, 0, voice, sound(30, {}, floor=VOICE - CLEAN + 1)) is None, "music beside it"
    assert line_span(lines, 1, voice, quiet(30)) is None, "too short"
    assert line_span(lines, 2, voice, quiet(30)) is None, "another speaks into it"


def test_levels_are_those_of_the_sound_however_it_is_cut_into_blocks() -> None:
    time = np.arange(3 * RATE) / RATE
    stereo = np.stack([0.5 * np.sin(2 * np.pi * 200 * time)] * 2, axis=1).astype(np.float32)
    whole = levels([stereo], RATE)
    assert len(whole.power) == 150
    assert 10 * np.log10(whole.power).mean() == pytest.approx(-9.03, abs=0.05) and whole.peak.max() == pytest.approx(0.5, abs=0.001)
    for cut in (1, 777, RATE, 2 * RATE + 5):
        parts = levels([stereo[:cut], stereo[cut:]], RATE)
        np.testing.assert_allclose(parts.power, whole.power)
        np.testing.assert_array_equal(parts.peak, whole.peak)
    assert len(levels([], RATE).power) == 0


@given(
    st.lists(
        st.tuples(st.floats(0.0, 3.0), st.floats(0.2, 40.0), st.sampled_from([None, "A", "B"]), st.floats(-60, 0), st.floats(0, 1)),
        max_size=12,
    ),
    st.floats(-80, -10),
)
def test_what_is_taken_always_keeps_to_the_limits(facts: list[tuple[float, float, str | None, float, float]], music: float) -> None:
    lines, parts, at = [], {}, 0.0
    for pause, length, speaker, level, sure in facts:
        lines.append(line(at + pause, at + pause + length, speaker, sure, words=round(2 * length)))
        at = lines[-1].end
        parts[(lines[-1].start, lines[-1].end)] = level
    voice, background = sound(at + 1, parts), sound(at + 1, {}, floor=music)
    for speaker in (None, "A", "B"):
        found = best_span(lines, speaker, voice, background)
        if found is not None:
            assert SHORTEST - 0.3 <= found.end - found.start <= LONGEST
            inside = [one for one in lines if one.start < found.end - 0.15 and found.start + 0.05 < one.end - 1e-9]
            assert {one.speaker for one in inside} == {speaker}
