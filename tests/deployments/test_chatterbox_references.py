"""Recordings that give the Chatterbox service a voice: what it takes, what it refuses, what it remembers."""

from __future__ import annotations

import io
import os
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import soundfile
from chatterbox_service.bounded import Bounded
from chatterbox_service.errors import BadReference, BodyTooLarge, UnknownReference, UnknownVoice
from chatterbox_service.references import References, checked
from chatterbox_service.voices import Voices

from tests.deployments.small_service import in_base64, recording, sha256

LIMIT = 20 * 2**20  # bytes


def wav_of(samples: np.ndarray, sample_rate: int = 24_000, subtype: str = "FLOAT") -> bytes:
    file = io.BytesIO()
    soundfile.write(file, samples, sample_rate, format="WAV", subtype=subtype)
    return file.getvalue()


@pytest.mark.parametrize(
    "file",
    [
        recording(),
        recording(kind="FLAC"),
        recording(kind="OGG"),
        recording(kind="MP3", sample_rate=48_000),
        recording(sample_rate=16_000),
        recording(sample_rate=96_000, subtype="PCM_24"),
        recording(channels=2, sample_rate=44_100, subtype="FLOAT"),
    ],
    ids=["wav", "flac", "ogg", "mp3", "16 kHz", "96 kHz, 24 bits", "stereo"],
)
def test_whatever_the_file_the_model_gets_mono_at_its_own_rate(file: bytes) -> None:
    speech = checked(file)
    assert speech.dtype == np.float32 and speech.ndim == 1
    assert len(speech) / 24_000 == pytest.approx(5.0, abs=0.2)
    assert np.abs(speech).max() == pytest.approx(0.2, abs=0.02)


def test_silence_around_the_speech_is_left_out() -> None:
    assert len(checked(recording(seconds=4.0, silence=6.0))) / 24_000 == pytest.approx(4.0, abs=0.05)


@pytest.mark.parametrize(
    ("file", "fault"),
    [
        (b"", "empty"),
        (b"RIFF", "damaged, or no sound file"),
        (b"\0" * 5000, "damaged, or no sound file"),
        (b"<html>" * 1000, "damaged, or no sound file"),
        (recording()[:40], "damaged|no sound"),
        (recording(seconds=2.0), r"2\.0 s of speech, at least 3 s"),
        (recording(seconds=2.0, silence=10.0), r"2\.0 s of speech, at least 3 s"),
        (recording(seconds=31.0), r"31\.0 s of speech, at most 30 s"),
        (recording(seconds=130.0, sample_rate=16_000, kind="FLAC"), "longer than 120 s"),
        (recording(level=0.001), "too quiet, -63 dBFS, at least -45 dBFS"),
        (recording(level=0.0), "silent"),
        (recording(sample_rate=8_000), "8000 Hz, from 16000 to 192000 Hz"),
        (recording(channels=9), "9 channels, at most 8"),
        (recording(kind="CAF"), "CAF, which is none of"),
        (
            wav_of(np.clip(3 * np.sin(np.arange(120_000) / 25), -1, 1)),
            r"clipped, \d\d\.\d% of its samples are at full scale, at most 0\.1%",
        ),
        (wav_of(np.full(120_000, np.nan, dtype=np.float32)), "damaged, not all of its samples are numbers"),
        (wav_of(np.full(120_000, np.inf, dtype=np.float32)), "damaged, not all of its samples are numbers"),
        (wav_of(np.zeros(0, dtype=np.float32)), "no sound in it"),
    ],
    ids=lambda value: value if isinstance(value, str) else "file",  # a WAV of floats has the time of its making in it
)
def test_what_no_voice_can_be_cloned_from_is_refused_by_its_fault_and_the_limit(file: bytes, fault: str) -> None:
    with pytest.raises(BadReference, match=fault) as caught:
        checked(file)
    assert "\n" not in str(caught.value) and str(caught.value).startswith("reference audio: ")


@pytest.mark.parametrize("place", range(0, 60, 2))
def test_a_damaged_header_is_no_crash(place: int) -> None:
    """Whatever two bytes of it say: sizes of gigabytes, no channels, no rate."""
    file = bytearray(recording())
    file[place : place + 2] = b"\xff\xff"
    try:
        assert 3 <= len(checked(bytes(file))) / 24_000 <= 30
    except BadReference as error:
        assert "\n" not in str(error)


def test_a_recording_cut_short_is_taken_for_what_is_left_of_it() -> None:
    file = recording(seconds=8.0)
    assert len(checked(file[: len(file) // 2])) / 24_000 == pytest.approx(4.0, abs=0.05)


def test_a_recording_that_was_sent_is_found_by_its_digest() -> None:
    references = References(4, LIMIT)
    file = recording()
    sent = references.add(file)
    assert sent.name == sha256(file)
    assert references.find(sent.name) is sent and references.add(file) is sent
    assert references.add_base64(in_base64(file)) is sent


def test_the_one_nobody_asked_for_the_longest_is_forgotten_first() -> None:
    references = References(2, LIMIT)
    first, second, third = (recording(pitch=pitch) for pitch in (100, 120, 140))
    references.add(first)
    references.add(second)
    references.find(sha256(first))
    references.add(third)
    assert references.find(sha256(first)) and references.find(sha256(third))
    with pytest.raises(UnknownReference, match="send it again"):
        references.find(sha256(second))


@pytest.mark.parametrize("name", ["", "abc", "g" * 64, "A" * 64, "../" + "a" * 61, "a" * 63 + "\n", "a" * 65])
def test_what_is_no_digest_is_refused(name: str) -> None:
    with pytest.raises(BadReference, match="64 hexadecimal digits"):
        References(4, LIMIT).find(name)


@pytest.mark.parametrize("text", ["=", "a", "äöü", "aGVsbG8", "aGVs bG8=", "aGVsbG8=\n", "data:audio/wav;base64,aGVsbG8="])
def test_broken_base64_is_refused(text: str) -> None:
    with pytest.raises(BadReference, match="not base64"):
        References(4, LIMIT).add_base64(text)


def test_a_file_over_the_limit_is_refused_before_it_is_read() -> None:
    references = References(4, 1000)
    for send in (lambda: references.add(b"x" * 1001), lambda: references.add_base64("A" * 1400)):
        with pytest.raises(BodyTooLarge, match="1000"):
            send()
    with pytest.raises(BadReference, match="sound file"):
        references.add_base64(in_base64(b"x" * 1000))  # just within


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    folder = tmp_path / "voices"
    folder.mkdir()
    (folder / "anna.wav").write_bytes(recording(pitch=200))
    (folder / "Пётр 2.flac").write_bytes(recording(pitch=100, kind="FLAC"))
    (folder / "short.wav").write_bytes(recording(seconds=1.0))
    (folder / "notes.txt").write_text("no voice")
    (folder / ".hidden.wav").write_bytes(recording())
    (folder / "deeper").mkdir()
    (folder / "deeper" / "inner.wav").write_bytes(recording())
    (tmp_path / "outside.wav").write_bytes(recording())
    (folder / "linked.wav").symlink_to(tmp_path / "outside.wav")
    return folder


def test_the_folder_s_recordings_are_voices_by_name(folder: Path) -> None:
    voices = Voices(folder, References(8, LIMIT))
    assert voices.find("anna").name == sha256((folder / "anna.wav").read_bytes())
    assert voices.find("Пётр 2").duration == pytest.approx(5.0, abs=0.05)


def test_a_list_tells_what_is_wrong_with_a_voice(folder: Path) -> None:
    listed = {voice["name"]: voice for voice in Voices(folder, References(8, LIMIT)).listed()}
    assert set(listed) == {"anna", "short", "Пётр 2"}
    assert "at least 3 s" in listed["short"]["error"]
    assert listed["anna"]["reference"] == sha256((folder / "anna.wav").read_bytes())


@pytest.mark.parametrize(
    "name",
    [
        "",
        ".",
        "..",
        "../outside",
        "linked",
        "deeper/inner",
        "inner",
        ".hidden",
        "notes",
        "anna.wav",
        "ANNA",
        "anna\0",
        "/etc/passwd",
        "a" * 5000,
        "\ud800",
    ],
)
def test_a_name_leads_nowhere_but_to_the_folder_s_own_recordings(folder: Path, name: str) -> None:
    with pytest.raises(UnknownVoice) as caught:
        Voices(folder, References(8, LIMIT)).find(name)
    assert str(caught.value).isascii() and len(str(caught.value)) < 500 and str(folder) not in str(caught.value)


def test_a_voice_whose_recording_was_changed_is_read_again(folder: Path) -> None:
    voices = Voices(folder, References(8, LIMIT))
    before = voices.find("anna")
    assert voices.find("anna") is before
    (folder / "anna.wav").write_bytes(recording(seconds=6.0, pitch=210))
    assert voices.find("anna").name == sha256((folder / "anna.wav").read_bytes()) != before.name


def test_a_recording_that_can_t_be_read_is_named(folder: Path) -> None:
    voices = Voices(folder, References(8, 1024))
    with pytest.raises(BodyTooLarge, match=r"voice anna: .* at most 1024"):
        voices.find("anna")
    if os.geteuid():
        (folder / "anna.wav").chmod(0)
        with pytest.raises(UnknownVoice, match="can't be read"):
            Voices(folder, References(8, LIMIT)).find("anna")


@pytest.mark.parametrize("place", [lambda folder: None, lambda folder: folder / "nowhere", lambda folder: folder / "anna.wav"])
def test_without_a_folder_there_are_no_voices(folder: Path, place: Callable[[Path], Path | None]) -> None:
    voices = Voices(place(folder), References(8, LIMIT))
    assert voices.listed() == []
    with pytest.raises(UnknownVoice):
        voices.find("anna")


def test_a_cache_never_holds_more_than_it_may() -> None:
    cache: Bounded[int, int] = Bounded(3)
    for number in range(100):
        cache.put(number, number)
        cache.get(0)
        assert len(cache) <= 3
    assert cache.get(0) == 0 and cache.get(98) == 98 and cache.get(97) is None
