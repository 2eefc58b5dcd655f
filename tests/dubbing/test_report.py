"""The page: every line is there, what needs a look stands out, and no text, name or address is ever markup."""

from __future__ import annotations

import base64
import copy
import hashlib
import json
import re
import xml.etree.ElementTree as ElementTree
from html.parser import HTMLParser
from typing import Any

import numpy as np
import pytest

from dubbing import report
from dubbing.report import page, plots, tiles
from dubbing.wording import ENGLISH, RUSSIAN, Wording

FILE = {
    "integrated_loudness": -16.3,
    "loudness_target": -16.0,
    "true_peak": -1.3,
    "duration": 60.0,
    "lesson_duration": 60.0,
    "overlaps": 0,
    "word_error_rate": 0.03,
    "largest_drift": 0.4,
    "largest_rate": 1.12,
    "flags": [],
}
HOSTILE = (
    "</script><script>alert(1)</script>",
    '<img src=x onerror="alert(1)">',
    "\"'><svg onload=alert(1)>",
    "<!--<script>",
    "javascript:alert(1)",
    "{{ 7 * 7 }} {% raw %}",
    "]]> &lt;b&gt; &amp;",
)


def line(number: int, **changes: Any) -> dict[str, Any]:
    return {
        "id": f"line{number}",
        "speaker": None,
        "source_text": f"Предложение {number}.",
        "translation": f"Sentence {number}.",
        "source_start": 5.0 * number,
        "source_end": 5.0 * number + 4.0,
        "start": 5.0 * number + 0.2,
        "end": 5.0 * number + 4.1,
        "rate": 1.05,
        "drift": 0.2,
        "overflow": 0.0,
        "engine": "kokoro",
        "voice": "af_heart",
        "said_with": None,
        "flags": [],
        "checks": {"heard": f"Heard {number}.", "word_error_rate": 0.0, "duration_ratio": 0.98, "reading_speed": 12.0},
        **changes,
    }


def timeline(*lines: dict[str, Any], **changes: Any) -> dict[str, Any]:
    duration = 5.0 * len(lines) + 5.0
    return {"lesson": "Rainbow", "source_language": "ru", "target_language": "en", "duration": duration, "lines": list(lines), **changes}


def summary(**changes: Any) -> dict[str, Any]:
    lesson = {"name": "Rainbow", "duration": 60.0, "source_language": "ru", "container": "mp4"}
    return {"lesson": lesson, "target_language": "en", "engines": {"speech": "Kokoro-82M"}, "file": FILE, "notes": [], **changes}


FILES = {
    "video": "lesson.en.mp4",
    "original_audio": "original.m4a",
    "srt_en": "lesson.en.srt",
    "vtt_en": "lesson.en.vtt",
    "ass_en": "lesson.en.ass",
    "timeline": "timeline.json",
    "report": "report.json",
}
PLOTS = {name: f"<svg xmlns='http://www.w3.org/2000/svg'><title>{name}</title></svg>" for name in ("levels", "rates", "drift")}


class Page(HTMLParser):
    """What a browser would see: elements with their attributes, and the text of each kind of element."""

    def __init__(self, content: str) -> None:
        super().__init__()
        self.elements: list[tuple[str, dict[str, str | None]]] = []
        self.texts: list[str] = []
        self.scripts: list[str] = []
        self.feed(content)
        self.close()

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.elements.append((tag, dict(attrs)))

    def handle_data(self, data: str) -> None:
        if self.cdata_elem == "script":
            self.scripts.append(data)
        elif data.strip() and self.cdata_elem != "style":
            self.texts.append(data.strip())

    def all(self, tag: str, **attributes: str) -> list[dict[str, str | None]]:
        return [have for name, have in self.elements if name == tag and attributes.items() <= have.items()]

    @property
    def lines(self) -> list[dict[str, str | None]]:
        return [have for name, have in self.elements if name == "tr" and "id" in have]

    @property
    def captions(self) -> list[dict[str, Any]]:
        return json.loads(self.scripts[0])


def opened(
    lesson: dict[str, Any], about: dict[str, Any] | None = None, files: dict[str, Any] | None = None, words: Wording = ENGLISH
) -> Page:
    return Page(page(lesson, about or summary(), FILES if files is None else files, PLOTS, words))


# Lines


def test_every_line_is_on_the_page_with_both_texts_and_what_was_heard() -> None:
    shown = opened(timeline(*(line(number) for number in range(1000))))
    assert len(shown.lines) == 1000
    for number in (0, 500, 999):
        assert {f"Предложение {number}.", f"Sentence {number}.", f"Heard {number}."} <= set(shown.texts)


def test_flagged_lines_are_marked_counted_and_can_be_filtered() -> None:
    shown = opened(timeline(line(0), line(1, flags=["late", "fast"]), line(2)))
    assert [have["id"] for have in shown.lines if "flagged" in (have["class"] or "").split()] == ["line-2"]
    assert {"late", "fast", "1 to look at", "Only the 1 flagged"} <= set(shown.texts)
    assert shown.all("input", id="only")


def test_without_flags_there_is_nothing_to_filter() -> None:
    shown = opened(timeline(line(0)))
    assert "no line flagged" in shown.texts
    assert not shown.all("input")


def test_measurements_beyond_their_limits_stand_out() -> None:
    checks = {"heard": "x", "word_error_rate": 0.5, "duration_ratio": 1.0, "reading_speed": 12.0}
    shown = opened(timeline(line(0, rate=1.27, drift=-1.4, overflow=0.3, checks=checks), line(1)))
    assert len(shown.all("dd", **{"class": "attention"})) == 4
    assert {"1.27×", "\N{MINUS SIGN}1.40 s", "50 %", "0.30 s"} <= set(shown.texts)


def test_a_line_that_was_not_translated_at_once_says_how_it_was_come_by() -> None:
    ladder = [{"attempts": 1, "rung": "window", "model": "m"}, {"attempts": 4, "rung": "fallback", "model": "n"}]
    shown = opened(timeline(*(line(number, translated=way) for number, way in enumerate(ladder))))
    assert [text for text in shown.texts if "requests" in text] == ["in 4 requests, by the other model"]


def test_each_spoken_line_has_a_button_that_plays_it_and_one_for_the_original() -> None:
    shown = opened(timeline(line(0), line(1)))
    assert [have["data-at"] for have in shown.all("button", **{"data-player": "dubbed"})] == ["0.2", "5.2"]
    assert [have["data-at"] for have in shown.all("button", **{"data-player": "original"})] == ["0.0", "5.0"]


def test_a_line_said_with_another_points_there_and_has_nothing_to_play() -> None:
    merged = line(1, translation="", said_with="line0", start=5.0, end=5.0, checks={})
    shown = opened(timeline(line(0), merged, line(2, translation="", start=10.0, end=10.0, checks={})))
    assert shown.all("a", href="#line-1")
    assert "nothing is said" in shown.texts
    assert len(shown.all("button", **{"data-player": "dubbed"})) == 1


def test_another_voice_than_the_usual_is_named() -> None:
    shown = opened(timeline(line(0), line(1), line(2, engine="piper", voice="lessac")))
    assert "lessac (piper)" in shown.texts
    assert "af_heart (kokoro)" not in shown.texts


def test_a_clone_is_named_with_where_it_comes_from() -> None:
    shown = opened(timeline(line(0), line(1), line(2, engine="chatterbox", voice="lecturer", cloned_from="0:12-0:22")))
    assert "lecturer, cloned from 0:12-0:22 (chatterbox)" in shown.texts


def test_speakers_are_named_where_there_are_several() -> None:
    assert "Anna" in opened(timeline(line(0, speaker="Anna"), line(1, speaker="Boris"))).texts
    assert "Anna" not in opened(timeline(line(0, speaker="Anna"), line(1, speaker="Anna"))).texts


# Key figures


def test_key_figures_within_their_limits_are_good() -> None:
    assert {tile.state for tile in tiles(FILE)} == {"ok"}


@pytest.mark.parametrize(
    ("key", "value"),
    [
        ("integrated_loudness", -19.0),
        ("true_peak", 0.2),
        ("largest_drift", 1.4),
        ("largest_drift", -1.4),
        ("largest_rate", 1.25),
        ("word_error_rate", 0.4),
        ("overlaps", 2),
    ],
)
def test_a_key_figure_beyond_its_limit_asks_for_attention(key: str, value: float) -> None:
    assert [tile.state for tile in tiles({**FILE, key: value})].count("attention") == 1


@pytest.mark.parametrize("value", [None, float("nan"), float("-inf")])
def test_what_was_not_measured_is_said_so(value: float | None) -> None:
    assert [tile.value for tile in tiles({**FILE, "true_peak": value})].count("not measured") == 1
    assert {tile.state for tile in tiles({})} == {"unknown"}


# Players and files


def test_the_player_gets_its_captions_from_the_page() -> None:
    target, source = opened(timeline(line(0), line(1))).captions
    assert (target["of"], target["language"], source["of"], source["language"]) == ("dubbed", "en", "original", "ru")
    assert [cue[2] for cue in target["cues"]] == ["Sentence 0.", "Sentence 1."]
    assert [cue[0] for cue in source["cues"]] == [0.0, 5.0]


def test_a_lesson_without_picture_has_an_audio_player() -> None:
    shown = opened(timeline(line(0)), files={**FILES, "video": "lesson.en.m4a", "audio_only": "1"})
    assert shown.all("audio", id="dubbed", src="./lesson.en.m4a")
    assert not shown.all("video")


def test_missing_files_leave_no_empty_players() -> None:
    shown = opened(timeline(line(0)), files={})
    assert not shown.all("video") + shown.all("audio") + shown.all("button")


def test_file_names_are_encoded_and_stay_beside_the_page() -> None:
    shown = opened(timeline(line(0)), files={**FILES, "video": "урок #1? 100%.mp4", "report": "//evil.example/x"})
    assert shown.all("video")[0]["src"] == "./%D1%83%D1%80%D0%BE%D0%BA%20%231%3F%20100%25.mp4"
    assert shown.all("a", href=".///evil.example/x")


def test_the_page_needs_nothing_from_elsewhere() -> None:
    shown = opened(timeline(line(0)))
    addresses = [value for _, have in shown.elements for name, value in have.items() if name in ("src", "href", "poster")]
    assert addresses
    assert all(address and address.startswith(("./", "#", "data:image/svg+xml;base64,")) for address in addresses)
    assert not shown.all("link")


def test_pictures_are_part_of_the_page() -> None:
    addresses = [have["src"] or "" for have in opened(timeline(line(0))).all("img")]
    assert [base64.b64decode(address.partition(",")[2]).decode() for address in addresses] == list(PLOTS.values())


# Hostile texts


@pytest.mark.parametrize("words", [ENGLISH, RUSSIAN], ids=["en", "ru"])
@pytest.mark.parametrize("text", HOSTILE)
def test_a_hostile_text_is_shown_and_never_markup(text: str, words: Wording) -> None:
    def everywhere(text: str) -> Page:
        lines = [
            line(0, source_text=text, translation=text, speaker=text, voice=text, engine=text, flags=[text], checks={"heard": text}),
            line(1, speaker="x"),
        ]
        checks = {**FILE, "flags": [text]}
        return opened(
            timeline(*lines, lesson=text),
            summary(notes=[text], engines={text: text}, file=checks),
            {**FILES, "video": text, "srt_en": text, "thumbnail": text},
            words,
        )

    hostile, innocent = everywhere(text), everywhere("innocent")
    assert [tag for tag, _ in hostile.elements] == [tag for tag, _ in innocent.elements]
    assert [list(have) for _, have in hostile.elements] == [list(have) for _, have in innocent.elements]
    assert hostile.scripts[1] == innocent.scripts[1]
    assert text in hostile.texts
    assert "".join(hostile.captions[0]["cues"][0][2].split()) == "".join(text.split())
    addresses = [have[name] or "" for _, have in hostile.elements for name in ("src", "href", "poster") if name in have]
    assert all(address.startswith(("./", "#", "data:image/svg+xml;base64,")) for address in addresses)


def test_texts_that_no_file_can_hold_do_not_break_the_page() -> None:
    content = page(timeline(line(0, translation="half \ud83d and bell \x07 and \u202ereversed")), summary(), FILES, PLOTS)
    assert "half  and bell" not in content
    assert "half and bell and reversed" in content
    content.encode()


def test_only_the_pages_own_script_may_run() -> None:
    shown = opened(timeline(line(0)))
    (policy,) = shown.all("meta", **{"http-equiv": "Content-Security-Policy"})
    digest = base64.b64encode(hashlib.sha256(shown.scripts[1].encode()).digest()).decode()
    assert f"script-src 'sha256-{digest}'" in (policy["content"] or "")


# In Russian


def test_a_page_in_russian_has_no_english_but_of_the_lesson() -> None:
    flags = ["timing: spoken 1.27 times as fast", "translation: it lost the number 42"]
    lines = [
        line(0, speaker="Анна", translation="Уно.", flags=flags, rate=1.27, drift=-1.4, overflow=0.3, checks={"word_error_rate": 0.5}),
        line(1, speaker="Борис", translation="", said_with="line0", start=5.0, end=5.0, checks={}),
        line(2, speaker="Борис", translation="Дос.", translated={"attempts": 4, "rung": "fallback"}, checks={"heard": "Ос."}),
        line(3, speaker="Борис", translation="", start=5.0, end=5.0, checks={}),
    ]
    engines = {"speech": "Кокоро, voice хм_1, cloned from 0:12-0:22", "separation": "Сплитер"}
    checks = {**FILE, "largest_drift": None, "flags": ["2 lines overlap"]}
    shown = opened(timeline(*lines), summary(engines=engines, file=checks, notes=["no thumbnail: нет"]), words=RUSSIAN)
    labels = [value or "" for _, have in shown.elements for name, value in have.items() if name in ("aria-label", "alt", "title")]
    names = "Rainbow|LUFS|dBTP|SRT|VTT|ASS|JSON|CSV"
    assert [text for text in (*shown.texts, *labels) if re.search("[A-Za-z]", re.sub(names, "", text))] == []
    assert shown.all("html", lang="ru")
    assert {
        *("4 реплики", "1 под вопросом", "Только под вопросом (1)", "Русский → английский", "репликой 1", "ничего не произносится"),
        *("время: ускорено в 1,27 раза", "перевод: потеряно число 42", "накладываются друг на друга реплики: 2"),
        *("не измерено", "\N{MINUS SIGN}16,3 LUFS", "\N{MINUS SIGN}1,40 с", "за 4 запроса, другой моделью", "Субтитры (английский)"),
        *("озвучивание", "Кокоро, голос хм_1, клон с 0:12-0:22", "0:10,2 \N{EN DASH} 0:14,1"),
    } <= {text.removesuffix(" ·") for text in shown.texts}
    assert [caption["label"] for caption in shown.captions] == ["Английский", "Русский"]


def test_pictures_have_their_labels_in_russian_too(levels: tuple[np.ndarray, np.ndarray]) -> None:
    drawn = {name: picture.decode() for name, picture in plots(timeline(line(0), line(1)), *levels).items()}
    shown = Page(page(timeline(line(0)), summary(), FILES, drawn, RUSSIAN))
    pictures = [base64.b64decode((have["src"] or "").partition(",")[2]).decode() for have in shown.all("img")]
    texts = {label.text or "" for picture in pictures for label in ElementTree.fromstring(picture).iter("{http://www.w3.org/2000/svg}text")}
    assert {"уровень, dBFS", "темп речи", "сдвиг, с", "оригинал", "дубляж", "реплики", "1,20"} <= texts
    assert [text for text in texts if re.search(r"[A-Za-z]|\d\.\d", text.replace("dBFS", ""))] == []


def test_a_label_stays_text() -> None:
    picture = "<svg xmlns='http://www.w3.org/2000/svg'><text x='1'>&lt;script&gt; &amp; 1.50</text><text x='2'>drift, seconds</text></svg>"
    shown = Page(page(timeline(line(0)), summary(), FILES, {"drift": picture}, RUSSIAN))
    [address] = [have["src"] or "" for have in shown.all("img")]
    first, second = ElementTree.fromstring(base64.b64decode(address.partition(",")[2]))
    assert (first.text, second.text) == ("<script> & 1.50", "сдвиг, с")


# Empty


def test_a_lesson_without_lines_still_has_a_page_and_pictures() -> None:
    empty = timeline(duration=0.0)
    shown = opened(empty, summary(file={}, engines={}))
    assert shown.lines == []
    for picture in plots(empty, np.array([]), np.array([])).values():
        ElementTree.fromstring(picture)


# Pictures


@pytest.fixture(scope="module")
def levels() -> tuple[np.ndarray, np.ndarray]:
    moments = np.linspace(0, 60, 2000)
    original = -30 + 10 * np.sin(moments)
    original[:5] = -np.inf
    original[5] = np.nan
    return original, original - 1


@pytest.mark.parametrize("count", [1, 5, 1000])
def test_pictures_are_valid_and_the_same_every_time(levels: tuple[np.ndarray, np.ndarray], count: int) -> None:
    lines = timeline(*(line(number, rate=1.0 + number % 40 / 100, drift=number % 7 / 4 - 0.2) for number in range(count)))
    pictures = plots(lines, *levels)
    assert set(pictures) == {"levels", "rates", "drift"}
    for picture in pictures.values():
        root = ElementTree.fromstring(picture)
        assert root.tag == "{http://www.w3.org/2000/svg}svg"
        assert len(picture) < 400_000
    assert plots(copy.deepcopy(lines), *levels) == pictures


def test_pictures_follow_the_readers_light_or_dark_mode(levels: tuple[np.ndarray, np.ndarray]) -> None:
    for picture in plots(timeline(line(0)), *levels).values():
        assert b"prefers-color-scheme:dark" in picture
        assert b"currentColor" in picture
        assert report._INK.encode() not in picture
        assert b"<!DOCTYPE" not in picture
