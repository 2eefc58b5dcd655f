"""Sound in and out of files: exactly as long as the lesson, at its place in time, whatever it was recorded as."""

from __future__ import annotations

import itertools
import subprocess
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from blocks.store import Store
from dubbing import audio, media
from dubbing.audio import FADE, fade_ends, trim_silence
from dubbing.errors import SilentSource
from dubbing.lesson import Artifact, Lesson, Sound
from dubbing.media import SAMPLE_RATE
from tasks.extract_audio import extract_audio


def make(path: Path, source: str, *options: str) -> Path:
    subprocess.run(
        ["ffmpeg", "-v", "error", "-y", "-f", "lavfi", "-i", source, *options, "-fs", "20M", str(path)], check=True, timeout=1000
    )
    return path


def extracted(path: Path, duration: float) -> np.ndarray:
    audio.extract(path, media.probe(path, path.name).sound, duration, path.with_name("sound.wav"))
    return np.concatenate(list(audio.blocks(path.with_name("sound.wav"))))


@pytest.mark.parametrize(
    ("layout", "rate", "channels"), [("mono", 48000, 1), ("stereo", 48000, 2), ("mono", 44100, 1), ("stereo", 22050, 2), ("5.1", 48000, 2)]
)
def test_any_recording_becomes_48_khz_in_one_or_two_channels(layout: str, rate: int, channels: int, tmp_path: Path) -> None:
    count = {"mono": 1, "stereo": 2, "5.1": 6}[layout]
    tone = "|".join(["0.25*sin(2*PI*1000*t)"] * count)
    samples = extracted(make(tmp_path / "lesson.mkv", f"aevalsrc='{tone}':s={rate}:d=2:c={layout}", "-c:a", "flac"), 2.0)
    assert samples.shape == (2 * SAMPLE_RATE, channels)
    middle = samples[SAMPLE_RATE // 2 : -SAMPLE_RATE // 2, 0]
    spectrum = np.abs(np.fft.rfft(middle * np.hanning(len(middle))))
    assert spectrum.argmax() == 1000  # one second: hertz
    if count < 3:
        assert np.abs(middle).max() == pytest.approx(0.25, rel=0.01)


@pytest.mark.parametrize("duration", [0.5, 1.0, 1.2345, 3.0])
def test_it_is_exactly_as_long_as_the_lesson(duration: float, tmp_path: Path) -> None:
    path = make(tmp_path / "lesson.wav", "sine=440:r=44100:d=1")
    samples = extracted(path, duration)
    assert len(samples) == round(duration * SAMPLE_RATE)
    assert not samples[round(1.05 * SAMPLE_RATE) :].any()


@pytest.mark.parametrize("missing", [0.03, 0.5])
def test_a_gap_in_the_timestamps_is_silence_and_nothing_moves(missing: float, tmp_path: Path) -> None:
    beats = "if(lt(mod(t,1),0.02),sin(2*PI*1000*t),0)"
    path = make(
        tmp_path / "lesson.mkv",
        f"aevalsrc='{beats}':s=48000:d=10",
        *("-af", f"aselect='not(between(t,4.3,{4.3 + missing}))',asetnsamples=n=480", "-c:a", "pcm_s16le"),
    )
    loud = np.flatnonzero(np.abs(extracted(path, 10.0)[:, 0]) > 0.3) / SAMPLE_RATE
    starts = [time for time, before in zip(loud, [-1.0, *loud], strict=False) if time - before > 0.5]
    assert starts == pytest.approx(list(range(10)), abs=0.02)


@pytest.mark.parametrize("source", ["anullsrc=d=2", "aevalsrc='0.00002*sin(t*3000)':d=2"], ids=["digital silence", "dither"])
def test_silence_is_refused_by_name(source: str, tmp_path: Path, store: Store) -> None:
    path = make(tmp_path / "silent.wav", source)
    facts = media.probe(path, path.name)
    kept = store.put_copy(path, "audio")
    lesson = Lesson(media=kept, container="wav", duration=2.0, picture=None, sound=facts.sound, has_chapters=False)
    with pytest.raises(SilentSource, match=r"^silent\.wav: the sound is silent from beginning to end"):
        extract_audio.function(store, lesson=lesson, name="silent.wav")


def test_a_quiet_recording_is_not_silence(tmp_path: Path, store: Store) -> None:
    path = make(tmp_path / "quiet.wav", "aevalsrc='0.002*sin(t*3000)':d=2")
    facts = media.probe(path, path.name)
    kept = store.put_copy(path, "audio")
    lesson = Lesson(media=kept, container="wav", duration=2.0, picture=None, sound=facts.sound, has_chapters=False)
    recording = extract_audio.function(store, lesson=lesson, name="quiet.wav")
    assert isinstance(recording.media, Artifact)
    assert recording.loudness == pytest.approx(-57.0, abs=3.0)


# --- clips


@pytest.mark.parametrize("rate", [0.95, 1.0, 1.13, 1.3])
def test_a_fitted_clip_is_exactly_as_long_as_its_place_at_the_same_pitch(rate: float, tmp_path: Path) -> None:
    tone = 0.3 * np.sin(2 * np.pi * 220 * np.arange(2 * 24_000) / 24_000)
    audio.write_clip(tmp_path / "clip.wav", tone, 24_000)
    fitted = audio.fitted(tmp_path / "clip.wav", rate)
    assert len(fitted) == round(2 / rate * SAMPLE_RATE)
    middle = fitted[len(fitted) // 4 : -len(fitted) // 4]
    frequencies = np.fft.rfftfreq(len(middle), 1 / SAMPLE_RATE)
    assert frequencies[np.abs(np.fft.rfft(middle * np.hanning(len(middle)))).argmax()] == pytest.approx(
        220, rel=0.025
    )  # half a semitone is 0.029
    assert (fitted[0], fitted[-1]) == (0.0, 0.0)


@given(st.integers(0, 5000), st.integers(0, 5000), st.integers(1, 5000))
def test_silence_at_the_ends_is_trimmed_and_no_speech_is(before: int, after: int, length: int) -> None:
    speech = 0.5 * np.ones(length, dtype=np.float32)
    trimmed = trim_silence(np.concatenate([np.zeros(before, np.float32), speech, np.zeros(after, np.float32)]), 24_000)
    margin = round(audio.TRIM_MARGIN * 24_000)
    assert len(trimmed) == length + min(before, margin) + min(after, margin)
    assert (trimmed > 0).sum() == length


def test_silence_throughout_stays_as_it_is() -> None:
    assert len(trim_silence(np.zeros(1000, np.float32), 24_000)) == 1000


@given(st.integers(0, 2000))
def test_ends_are_faded_and_nothing_else(length: int) -> None:
    samples = np.ones(length, dtype=np.float32)
    faded = fade_ends(samples, SAMPLE_RATE)
    assert len(faded) == length and (samples == 1).all()
    ramp = min(round(FADE * SAMPLE_RATE), length // 2)
    assert (faded[ramp : length - ramp] == 1).all()
    assert (np.diff(faded[:ramp]) > 0).all() and (np.diff(faded[length - ramp :]) < 0).all()


def test_a_span_is_read_where_it_is(tmp_path: Path) -> None:
    samples = np.zeros(3 * SAMPLE_RATE)
    samples[SAMPLE_RATE : SAMPLE_RATE + 480] = 0.5
    audio.write_clip(tmp_path / "sound.wav", samples, SAMPLE_RATE)
    span = audio.read_span(tmp_path / "sound.wav", 0.9, 1.1, 16_000)
    assert len(span) == 3200
    assert np.flatnonzero(np.abs(span) > 0.25)[0] == pytest.approx(1600, abs=5)
    assert len(audio.read_span(tmp_path / "sound.wav", 2.9, 9.0, 16_000)) == 1600
    assert len(audio.read_span(tmp_path / "sound.wav", 5.0, 6.0, 16_000)) == 0


def test_chunks_are_all_of_the_recording_and_end_in_pauses(tmp_path: Path) -> None:
    times = np.arange(50 * SAMPLE_RATE) / SAMPLE_RATE
    audio.write_clip(tmp_path / "sound.wav", np.where(np.mod(times, 4) < 3.5, 0.3 * np.sin(times * 2000), 0.0), SAMPLE_RATE)
    chunks = list(audio.chunks_at_silences(tmp_path / "sound.wav", 16_000, 20.0))
    assert sum(len(samples) for _, samples in chunks) == pytest.approx(50 * 16_000, abs=len(chunks))
    for (start, samples), (following, _) in itertools.pairwise(chunks):
        assert start + len(samples) / 16_000 == pytest.approx(following, abs=0.001)
        assert following % 4 > 3.5


def test_a_stream_is_chosen_by_its_number(tmp_path: Path) -> None:
    tones = ["-f", "lavfi", "-i", "sine=1000:r=48000:d=1", "-map", "0", "-map", "1", "-c:a", "flac"]
    path = make(tmp_path / "two.mkv", "sine=500:r=48000:d=1", *tones)
    for stream, frequency in ((0, 500), (1, 1000)):
        sound = Sound(stream=stream, codec="flac", channels=1, sample_rate=48000, start=0.0)
        audio.extract(path, sound, 1.0, tmp_path / "sound.wav")
        samples = np.concatenate(list(audio.blocks(tmp_path / "sound.wav")))[:, 0]
        assert np.abs(np.fft.rfft(samples)).argmax() == frequency
