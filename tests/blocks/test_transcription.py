"""Recognition of the sample lesson, of what nobody says, and of what is known to be said. With the real weights."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
import soundfile

from blocks.recogniser import words_of
from blocks.transcription import RATE, FasterWhisper
from dubbing import audio, media
from dubbing.errors import BadSetting
from dubbing.hallucinations import Segment
from dubbing.lesson import Word
from dubbing.media import SAMPLE_RATE
from dubbing.segmentation import utterances_from
from dubbing.verification import spoken_words, word_errors

ROOT = Path(__file__).parents[2]
SAMPLE = ROOT / "samples" / "lesson_ru.mp4"
LECTURE = ROOT.parent / "shared" / "media" / "lecture_ru.mp4"
SENTENCES = json.loads(SAMPLE.with_suffix(".json").read_text())["sentences"]


def no_progress(share: float) -> None:
    assert 0.0 <= share <= 1.0


def sound_of(lesson: Path, folder: Path) -> Path:
    probed = media.probe(lesson, lesson.name)
    audio.extract(lesson, probed.sound, probed.duration, folder / "lesson.wav")
    return folder / "lesson.wav"


@pytest.fixture(scope="module")
def whisper() -> Iterator[FasterWhisper]:
    recogniser = FasterWhisper()
    yield recogniser
    recogniser.close()


@pytest.fixture(scope="module")
def sample(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return sound_of(SAMPLE, tmp_path_factory.mktemp("sample"))


@pytest.fixture(scope="module")
def words(whisper: FasterWhisper, sample: Path) -> list[Word]:
    shares: list[float] = []
    found = whisper.transcribe(sample, "ru", shares.append)
    assert shares == sorted(shares) and 0.0 < shares[-1] <= 1.0
    return found


def test_the_language_is_heard(whisper: FasterWhisper, sample: Path) -> None:
    assert whisper.detect_language(sample) == "ru"


def test_less_than_one_word_in_ten_is_wrong(words: list[Word]) -> None:
    truth = " ".join(sentence["text"] for sentence in SENTENCES)
    assert word_errors(truth, " ".join(word.text for word in words), "ru").rate < 0.10


def test_times_never_run_backwards_and_stay_inside_the_recording(words: list[Word], sample: Path) -> None:
    assert all(0.0 <= word.start <= word.end <= soundfile.info(sample).duration + 0.1 for word in words)
    assert [word.start for word in words] == sorted(word.start for word in words)
    assert all(0.0 <= word.confidence <= 1.0 and word.text == word.text.strip() for word in words)


def test_every_sentence_starts_where_the_lecturer_starts_it(words: list[Word]) -> None:
    """On another machine a full stop may be missed: most sentences begin a line, and all lines begin one."""
    starts = [line.start for line in utterances_from(words, "ru")]
    assert sum(min(abs(start - sentence["start"]) for start in starts) < 0.6 for sentence in SENTENCES) >= len(SENTENCES) - 2
    for start in starts:
        assert min(abs(start - sentence["start"]) for sentence in SENTENCES) < 0.6


def test_a_lesson_is_recognised_the_same_again(whisper: FasterWhisper, tmp_path: Path, sample: Path) -> None:
    with soundfile.SoundFile(sample) as file:
        audio.write_clip(tmp_path / "part.wav", file.read(8 * SAMPLE_RATE, dtype="float32", always_2d=True).mean(axis=1), SAMPLE_RATE)
    once, again = (whisper.transcribe(tmp_path / "part.wav", "ru", no_progress) for _ in range(2))
    assert once == again and once


def test_a_real_lecture_is_recognised(whisper: FasterWhisper, tmp_path: Path) -> None:
    if not LECTURE.is_file():
        pytest.skip(f"no real lecture: {LECTURE.name} is not there")
    recording = sound_of(LECTURE, tmp_path)
    said = " ".join(word.text for word in whisper.transcribe(recording, "ru", no_progress)).casefold()
    # Far from the microphone, and rounding differs between processors: one word may be missed.
    heard = [word for word in ("константу", "температур", "200", "300", "якут") if word in said]
    assert len(heard) >= 4, said


# What nobody says


def chords(seconds: float) -> np.ndarray:
    """Slow chords with overtones, two seconds each."""
    time = np.arange(2 * SAMPLE_RATE) / SAMPLE_RATE
    bars = [
        sum(np.sin(2 * np.pi * note * k * time) / k for note in chord for k in range(1, 6)) * np.exp(-time)
        for chord in [(220.0, 261.6, 329.6), (174.6, 220.0, 261.6), (196.0, 246.9, 293.7)]
    ]
    return np.resize(np.concatenate(bars), round(seconds * SAMPLE_RATE)) * 0.1


@pytest.mark.parametrize(
    "sound",
    [
        np.zeros(20 * SAMPLE_RATE),
        0.05 * np.random.default_rng(1).standard_normal(20 * SAMPLE_RATE),
        chords(20.0),
        np.zeros(100),
        np.zeros(0),
    ],
    ids=["silence", "noise", "music", "two milliseconds", "nothing"],
)
def test_where_nobody_speaks_there_are_no_words_and_no_language(whisper: FasterWhisper, tmp_path: Path, sound: np.ndarray) -> None:
    audio.write_clip(tmp_path / "sound.wav", sound.astype(np.float32), SAMPLE_RATE)
    assert whisper.transcribe(tmp_path / "sound.wav", "ru", no_progress) == []
    assert whisper.detect_language(tmp_path / "sound.wav") == ""


def test_credits_and_loops_are_left_out_and_told(
    whisper: FasterWhisper, sample: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    """The real sound and voice detector; what Whisper would write down is played."""
    texts = ["Солнечный свет кажется белым.", "и вот " * 12, "Субтитры сделал DimaTorzok"]

    def listened(self: FasterWhisper, model: object, start: float, **_: object) -> list[tuple[Segment, list[Word]]]:
        heard = []
        for number, text in enumerate(texts):
            at = start + 2.0 + 4 * number
            said = [Word(text=token, start=at, end=at + 0.1, confidence=0.9) for token in text.split()]
            heard.append((Segment(text.split(), at, at + 4, -0.3), said))
        return heard

    monkeypatch.setattr(FasterWhisper, "_listened", listened)
    with caplog.at_level("WARNING"):
        found = whisper.transcribe(sample, "ru", no_progress)
    assert " ".join(word.text for word in found) == "Солнечный свет кажется белым. и вот"
    assert [one.why for one in whisper.left_out()] == ["said 12 times in a row", "credits of subtitles"]
    assert "DimaTorzok" in caplog.text


def test_a_device_that_is_not_there_is_refused(sample: Path) -> None:
    with pytest.raises(BadSetting, match=r"^device mps: CTranslate2 finds none here"):
        FasterWhisper(device="mps").detect_language(sample)


# Clips


@pytest.fixture(scope="module")
def clip(sample: Path) -> np.ndarray:
    return audio.read_span(sample, SENTENCES[1]["start"], SENTENCES[1]["end"], RATE)


def test_a_clip_is_heard_as_what_it_says(whisper: FasterWhisper, clip: np.ndarray) -> None:
    assert word_errors(SENTENCES[1]["text"], whisper.hear(clip, "ru"), "ru").errors <= 1


@pytest.mark.parametrize(
    "text",
    [
        SENTENCES[1]["text"],
        "Солнечный «свет» — кажется: 7 цветов, 20% и все-таки C++.",
        "свет",
        "Sunlight looks white, but it's many colours.",
    ],
)
def test_every_word_of_a_known_text_gets_a_time_inside_the_clip(whisper: FasterWhisper, clip: np.ndarray, text: str) -> None:
    aligned = whisper.align(clip, text, "ru")
    assert spoken_words(" ".join(word.text for word in aligned), "ru") == spoken_words(text, "ru")
    assert [word.start for word in aligned] == sorted(word.start for word in aligned)
    assert all(0.0 <= word.start <= word.end <= len(clip) / RATE + 0.02 for word in aligned)


def test_a_known_text_is_aligned_where_it_was_recognised(whisper: FasterWhisper, clip: np.ndarray, words: list[Word]) -> None:
    sentence = SENTENCES[1]
    aligned = whisper.align(clip, sentence["text"], "ru")
    heard = {word.text.strip(",.").casefold(): word.start for word in words if sentence["start"] - 0.5 < word.start < sentence["end"]}
    common = [
        (word.start + sentence["start"], heard[word.text.strip(",.").casefold()])
        for word in aligned
        if word.text.strip(",.").casefold() in heard
    ]
    assert len(common) >= 6
    assert np.median([abs(one - other) for one, other in common]) < 0.3


def test_words_of_a_language_without_spaces_are_aligned_apart(whisper: FasterWhisper, clip: np.ndarray) -> None:
    aligned = whisper.align(clip, "彩虹出现了。", "zh")
    assert "".join(word.text for word in aligned) == "彩虹出现了。"
    assert len(aligned) > 1


# Whisper's pieces


@pytest.mark.parametrize(
    ("pieces", "found"),
    [
        ([" Это", " все", "-таки", " радуга."], ["Это", "все-таки", "радуга."]),
        ([" to", " 50", "%", " of", " it."], ["to", "50%", "of", "it."]),
        ([" R", "&D", " costs", " $5."], ["R&D", "costs", "$5."]),
        ([" at", " 3", " p", ".m."], ["at", "3", "p.m."]),
        ([" 2", " +", " 2", " =", " 4."], ["2", "+", "2", "=", "4."]),
        ([" in", " C", "#", "."], ["in", "C#."]),
        ([" мороз", " —", " 50", " градусов"], ["мороз", "-50", "градусов"]),
        ([" свет", " —", " это", " волна"], ["свет", "это", "волна"]),
        (["彩", "虹", "出", "现。"], ["彩", "虹", "出", "现。"]),
        ([" ♪", " ...", " "], []),
        (["...", "Да."], ["Да."]),
        ([], []),
    ],
)
def test_pieces_of_words_are_put_together_and_what_nobody_says_is_left_out(pieces: list[str], found: list[str]) -> None:
    segment = SimpleNamespace(
        words=[SimpleNamespace(word=piece, start=0.5 * n, end=0.5 * n + 0.4, probability=0.9) for n, piece in enumerate(pieces)]
    )
    words = list(words_of(segment, 10.0))
    assert [word.text for word in words] == found
    assert [word.start for word in words] == sorted(word.start for word in words)
    assert all(10.0 <= word.start < word.end for word in words)


def test_a_segment_without_words_has_none() -> None:
    assert list(words_of(SimpleNamespace(words=None), 0.0)) == []
