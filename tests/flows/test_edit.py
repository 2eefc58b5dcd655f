"""A reviewer's edits, end to end: each costs what follows from it and nothing else, outlives reruns, is reported, and can be undone.

The real command line with engines that take no time (`tests.stand_ins`). Each command is a process of its own, forked from one that has
imported the program already.
"""

from __future__ import annotations

import json
import os
import shutil
import signal
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any, NamedTuple

import pytest

from tests import stand_ins
from tests.flows.stand_in_runs import CALM, Done, Run
from tests.lessons import make_lesson

LINES = 8  # of the lesson, one every two seconds
FOLLOWS = {"fit", "subtitles", "mix", "render", "inspect"}  # what an edited line's sound costs after its synthesis
OTHER_STYLE = json.dumps({"recogniser": {"style": "b"}})  # hears other words at the same times
OTHER_WORDS = "Здесь совсем другие слова сказаны."
HOSTILE = "\"<b>quoted</b>\" & 'co' {\\an8}\n1\n00:00:01,000 --> 00:00:02,000 مرحبا\u202e\x1b[31m --text $(id)"
HOSTILE_SHOWN = "\"<b>quoted</b>\" & 'co' {\\an8} 1 00:00:01,000 --> 00:00:02,000 مرحبا[31m --text $(id)"


class Desk:
    """A reviewer's place: a lesson, the folder that it was dubbed into, a store."""

    def __init__(self, place: Path) -> None:
        self.place = place
        self.lesson, self.folder, self.store = place / "lesson.mp4", place / "lesson.en", place / "store"
        self._notes = place / "notes"
        self.log = self._notes / "uses"

    def copied(self, place: Path) -> Desk:
        for name in ("store", "lesson.en"):
            shutil.copytree(self.place / name, place / name)
        shutil.copy2(self.lesson, place)
        return Desk(place)

    def start(self, verb: str, *arguments: str, **environment: str) -> Run:
        whole = [verb, *arguments, "--store", str(self.store), *(() if "--plain" in arguments else ("--json",))]
        whole = [argument for argument in whole if argument != "--plain"]
        return Run(whole, self._notes, CALM, {"STAND_INS_LINES": "2", "STAND_INS_SETTINGS": "{}", **environment})

    def do(self, verb: str, *arguments: str, **environment: str) -> Done:
        return self.start(verb, *arguments, **environment).wait()

    def dub(self, *options: str, **environment: str) -> dict[str, Any]:
        return self.do("dub", str(self.lesson), *options, **environment).result

    def edit(self, *options: str) -> dict[str, Any]:
        return self.do("edit", str(self.folder), *options).result

    def uses(self) -> list[str]:
        """Uses of engines since this was asked last, those of the checks left out."""
        found = [use for use in stand_ins.uses(self.log) if not use.startswith(("inspect ", "subtitles "))]
        self.log.unlink(missing_ok=True)
        return found

    def document(self, name: str = "timeline.json") -> dict[str, Any]:
        return dict(json.loads((self.folder / name).read_text()))

    @property
    def lines(self) -> list[dict[str, Any]]:
        return list(self.document()["lines"])

    @property
    def texts(self) -> list[str]:
        return [line["translation"] for line in self.lines]

    def id(self, number: int) -> str:
        return str(self.lines[number]["id"])

    def files(self) -> dict[str, bytes]:
        return {path.name: path.read_bytes() for path in self.folder.iterdir()}

    def change(self, number: int, **fields: Any) -> None:
        """By hand in timeline.json."""
        document = self.document()
        document["lines"][number] |= fields
        (self.folder / "timeline.json").write_text(json.dumps(document))

    def rewrite(self, name: str, old: str, new: str) -> None:
        """By hand in a caption file."""
        path = self.folder / name
        text = path.read_text()
        assert text.count(old) == 1
        path.write_text(text.replace(old, new))


@pytest.fixture(scope="module")
def first(prefect_server: None, tmp_path_factory: pytest.TempPathFactory) -> Desk:
    assert os.environ["PREFECT_API_URL"], "all commands use the tests' server"
    desk = Desk(tmp_path_factory.mktemp("first"))
    make_lesson(desk.lesson, 2 * LINES)
    desk.dub()
    assert len(desk.lines) == LINES
    return desk


@pytest.fixture
def desk(first: Desk, tmp_path: Path) -> Desk:
    """A copy of the dubbed lesson."""
    return first.copied(tmp_path)


def computed(result: dict[str, Any]) -> set[str]:
    return {stage["name"] for stage in result["stages"] if stage["state"] == "computed"}


def became(result: dict[str, Any]) -> list[str]:
    return [edit["became"] for edit in result["edits"]]


def said(number: int) -> str:
    return f"This is sentence {number} in en a."


def by_hand(number: int) -> str:
    return f"By hand {number}."


class Way(NamedTuple):
    """A way of editing a line, and the uses of engines that it costs."""

    make: Callable[[Desk, int], Any]
    uses: Callable[[int], list[str]]


def corrected(number: int) -> str:
    return OTHER_WORDS.replace("слова", f"слова{number}")


def new_words(number: int) -> list[str]:
    return [f"synthesize {by_hand(number)}"]


def old_words(number: int) -> list[str]:
    return [f"synthesize {said(number)}"]


def respelt(number: int) -> list[str]:
    return [f"synthesize {said(number)}".replace("sentence", "phrase")]


def words_translated_again(number: int) -> list[str]:
    return [f"translate {number}", f"synthesize This is sentence слова{number} in en a."]


def nothing(number: int) -> list[str]:
    return []


def captions(kind: str) -> Way:
    return Way(lambda desk, number: desk.rewrite(f"lesson.en.{kind}", said(number), by_hand(number)), new_words)


def command(uses: Callable[[int], list[str]], *options: str) -> Way:
    def make(desk: Desk, number: int) -> None:
        desk.edit(
            "--line", desk.id(number), *(option.replace("NEW", by_hand(number)).replace("RU", corrected(number)) for option in options)
        )

    return Way(make, uses)


IN_THE_FOLDER = [
    Way(lambda desk, number: desk.change(number, translation=by_hand(number)), new_words),
    Way(lambda desk, number: desk.change(number, voice="viktor"), old_words),
    Way(lambda desk, number: desk.change(number, say={"sentence": "phrase"}), respelt),
    Way(lambda desk, number: desk.change(number, source_text=corrected(number)), words_translated_again),
    Way(
        lambda desk, number: desk.rewrite("lesson.ru.srt", f"Это предложение номер {number} здесь.", corrected(number)),
        words_translated_again,
    ),
    captions("srt"),
    captions("vtt"),
    captions("ass"),
]
BY_COMMAND = [
    command(new_words, "--text", "NEW"),
    command(old_words, "--voice", "viktor"),
    command(respelt, "--say", "sentence=phrase"),
    command(words_translated_again, "--source-text", "RU"),
    command(new_words, "--source-text", "RU", "--text", "NEW"),
    command(nothing, "--silent"),
    Way(
        lambda desk, number: desk.edit("--say", f"{number}=number"),
        lambda number: [f"synthesize {said(number)}".replace(f"{number}", "number")],
    ),
    Way(lambda desk, number: desk.change(number, translation=""), nothing),
]


def test_an_edited_line_costs_one_synthesis(desk: Desk, first: Desk) -> None:
    """And a new fit, mix and mux. All else is cached; all other lines stay as they are."""
    desk.rewrite("lesson.en.srt", said(3), by_hand(3))
    result = desk.dub()
    assert desk.uses() == [f"synthesize {by_hand(3)}"]
    assert became(result) == ["applied"]
    assert computed(result) == {"synthesize", *FOLLOWS}
    assert desk.texts == [*first.texts[:3], by_hand(3), *first.texts[4:]]
    assert desk.files()["lesson.en.mp4"] != first.files()["lesson.en.mp4"]
    # It stays, and costs nothing more.
    files = desk.files()
    assert computed(desk.dub()) == set()
    assert (desk.files(), desk.uses()) == (files, [])


@pytest.mark.parametrize("ways", [IN_THE_FOLDER, BY_COMMAND], ids=["in the folder", "by command"])
def test_each_way_of_editing_costs_what_follows_from_it(desk: Desk, first: Desk, ways: list[Way]) -> None:
    """Each line edited in another way."""
    for number, way in enumerate(ways):
        way.make(desk, number)
    result = desk.dub()
    expected = [use for number, way in enumerate(ways) for use in way.uses(number)]
    translated = [f"translate {first.id(int(use.split()[1]))}" for use in expected if use.startswith("translate ")]
    assert desk.uses() == translated + [use for use in expected if use.startswith("synthesize ")]
    assert set(became(result)) == {"applied"}
    assert computed(result) == {"retranslate", "synthesize", *FOLLOWS}
    assert became(desk.dub()) == became(result)
    assert desk.uses() == []


def test_merged_lines_are_one_and_split_lines_two(desk: Desk, first: Desk) -> None:
    ids = [line["id"] for line in desk.lines]
    desk.edit("--line", ids[1], "--merge")
    desk.edit("--line", ids[5], "--split", "This is || sentence 5.")
    assert became(desk.dub()) == ["applied", "applied"]
    assert desk.uses() == [f"synthesize {said(1)} {said(2)}", "synthesize This is", "synthesize sentence 5."]
    assert desk.texts == [said(0), f"{said(1)} {said(2)}", said(3), said(4), "This is", "sentence 5.", said(6), said(7)]
    # The new lines can be edited in their turn.
    desk.edit("--line", desk.id(1), "--text", "Two at once.")
    desk.change(5, translation="The rest.")
    assert became(desk.dub()) == ["applied"] * 4
    assert desk.uses() == ["synthesize Two at once.", "synthesize The rest."]
    desk.edit("--undo", "all")
    assert computed(desk.dub()) == set()
    assert desk.files() == first.files()


def test_a_silenced_line_speaks_again(desk: Desk, first: Desk) -> None:
    desk.edit("--line", first.id(3), "--silent")
    assert computed(desk.dub()) == {"synthesize", *FOLLOWS}
    assert desk.texts == [*first.texts[:3], "", *first.texts[4:]]
    desk.edit("--line", first.id(3), "--speak")
    assert computed(desk.dub()) == set()
    assert desk.uses() == []
    assert desk.lines == first.lines


def test_undoing_gives_back_the_bytes_and_computes_nothing(desk: Desk, first: Desk) -> None:
    for number, text in enumerate(("One.", "Two.", "Three.", "Four.")):
        result = desk.edit("--line", first.id(number), "--text", text)
    desk.dub()
    assert desk.texts[:4] == ["One.", "Two.", "Three.", "Four."]
    assert len(desk.edit("--undo")["edits"]) == 3
    assert len(desk.edit("--undo", first.id(0))["edits"]) == 2
    assert len(desk.edit("--undo", result["edits"][1]["id"])["undone"]) == 3
    desk.dub()
    assert desk.texts == [*first.texts[:2], "Three.", *first.texts[3:]]
    desk.uses()
    desk.edit("--undo", "all")
    assert computed(desk.dub()) == set()
    assert (desk.files(), desk.uses()) == (first.files(), [])
    assert desk.do("edit", str(desk.folder), "--undo")[::2] == (10, "coursedub: there is no edit to undo\n")


def test_an_edit_survives_another_recogniser_and_is_reported(desk: Desk, first: Desk) -> None:
    desk.edit("--line", first.id(3), "--text", "By hand.")
    desk.change(5, translation="In the folder.")
    result = desk.dub("--voice", "viktor", STAND_INS_SETTINGS=OTHER_STYLE)
    assert [use for use in desk.uses() if use.startswith("translate")] != []
    assert [(desk.texts[number], desk.lines[number]["voice"]) for number in (3, 5)] == [
        ("By hand.", "viktor"),
        ("In the folder.", "viktor"),
    ]
    assert desk.document("report.json")["edits"] == result["edits"]
    assert [(edit["became"], edit["was"], edit["now"], edit["lines"]) for edit in result["edits"]] == [
        (
            "applied to a changed line",
            f"Это предложение номер {number} здесь.",
            f"Это предложение номерb {number} здесь.",
            [desk.id(number)],
        )
        for number in (3, 5)
    ]
    flag = "edit: the source line under it has changed, it was “Это предложение номер 3 здесь.”"
    assert flag in desk.lines[3]["flags"]
    assert flag in (desk.folder / "index.html").read_text()
    # It can be undone by the line that it is now, and is as it was where the words are as they were.
    assert [edit["line"] for edit in desk.edit("--undo", desk.id(3))["edits"]] == [first.id(5)]
    assert became(desk.dub()) == ["applied"]
    assert desk.texts == [*first.texts[:5], "In the folder.", *first.texts[6:]]


def test_edits_outlive_another_recording_of_the_lesson(desk: Desk, first: Desk) -> None:
    """Cut anew and saved over the old file: what was edited before, and what was changed in the folder since."""
    desk.edit("--line", first.id(3), "--text", "By hand.")
    desk.dub()
    desk.rewrite("lesson.en.srt", said(4), "In the folder.")
    make_lesson(desk.lesson, 2 * LINES, tone=500)
    result = desk.dub(STAND_INS_SETTINGS=OTHER_STYLE)
    assert desk.texts == [*first.texts[:3], "By hand.", "In the folder.", *first.texts[5:]]
    assert became(result) == ["applied to a changed line"] * 2
    assert desk.document()["lesson_sha256"] != first.document()["lesson_sha256"]
    # Undone for the new recording, they don't come back.
    desk.edit("--undo", "all")
    desk.dub(STAND_INS_SETTINGS=OTHER_STYLE)
    assert desk.texts == first.texts


def test_edits_need_nothing_of_the_store_but_themselves(desk: Desk, first: Desk) -> None:
    desk.edit("--line", first.id(3), "--text", "By hand.")
    for path in desk.store.iterdir():
        if path.name != "edits":
            shutil.rmtree(path)
    shutil.rmtree(desk.folder)
    desk.dub()
    assert desk.texts == [*first.texts[:3], "By hand.", *first.texts[4:]]


@pytest.mark.parametrize("when", ["fit:started:1", "fit:started:2"])
def test_a_change_in_the_folder_is_not_lost_when_the_run_is_killed(desk: Desk, first: Desk, when: str) -> None:
    desk.change(3, translation="By hand.")
    changed = desk.files()
    assert desk.do("dub", str(desk.lesson), STAND_INS_DIE=when).code == -signal.SIGKILL
    assert desk.files() == changed
    assert len(desk.edit()["edits"]) == (0 if when == "fit:started:1" else 1)
    assert became(desk.dub()) == ["applied"]
    assert desk.uses() == ["synthesize By hand."]
    assert desk.texts == [*first.texts[:3], "By hand.", *first.texts[4:]]


def test_what_a_person_changes_while_a_run_goes_on_is_not_written_over(desk: Desk, first: Desk) -> None:
    desk.change(3, translation="Before.")
    command = desk.start("dub", str(desk.lesson), STAND_INS_SECONDS="0.4")
    until = time.monotonic() + 600
    while "synthesize Before." not in stand_ins.uses(desk.log) and time.monotonic() < until:
        time.sleep(0.05)
    desk.rewrite("lesson.en.srt", said(5), "Meanwhile.")
    assert became(command.wait().result) == ["applied", "applied"]
    assert desk.uses() == ["synthesize Before.", "synthesize Meanwhile."]
    assert desk.texts == [*first.texts[:3], "Before.", said(4), "Meanwhile.", *first.texts[6:]]


def test_edits_made_at_once_are_all_kept(desk: Desk, first: Desk) -> None:
    commands = [desk.start("edit", str(desk.folder), "--line", first.id(number), "--text", f"{number}.") for number in range(4)]
    assert [command.wait().code for command in commands] == [0] * 4
    assert {edit["line"] for edit in desk.edit()["edits"]} == {first.id(number) for number in range(4)}


def test_a_plan_says_what_then_runs(desk: Desk, first: Desk) -> None:
    desk.edit("--line", first.id(3), "--text", "By hand.")
    desk.change(5, voice="viktor")
    files, kept = desk.files(), desk.edit()["edits"]
    stages = {stage["name"]: stage for stage in desk.do("plan", str(desk.lesson)).result["stages"]}
    assert {name for name, stage in stages.items() if stage["state"] == "cached"} == {
        "ingest",
        "extract_audio",
        "separate",
        "transcribe",
        "translate",
    }
    rows = {line["id"]: line["why"] for line in stages["synthesize"]["lines"] if line["state"] != "cached"}
    assert rows == {first.id(3): f"text {said(3)} → By hand.", first.id(5): f"voice {first.lines[5]['voice']} → viktor"}
    assert stages["synthesize"]["lines_to_compute"] == 2
    assert stages["synthesize"]["why"] == "translation changed (2 edits of a reviewer)"
    assert (desk.files(), desk.edit()["edits"], desk.uses()) == (files, kept, [])
    result = desk.dub()
    assert desk.uses() == ["synthesize By hand.", f"synthesize {said(5)}"]
    assert computed(result) | {"ingest", "extract_audio", "separate", "transcribe", "translate"} == set(stages)


def test_hostile_text_stays_text(desk: Desk, first: Desk) -> None:
    long = "w" * 990 + " <i>end"
    desk.edit("--line", first.id(3), "--text", HOSTILE)
    desk.change(5, translation=long)
    desk.dub()
    assert (desk.texts[3], desk.texts[5]) == (HOSTILE_SHOWN, long)
    assert desk.uses() == [f"synthesize {HOSTILE_SHOWN}", f"synthesize {long}"]
    page = (desk.folder / "index.html").read_text()
    assert "<b>quoted" not in page
    assert "<i>end" not in page
    # Read again from its captions, it is no change.
    assert len(desk.dub()["edits"]) == 2


def test_without_a_change_lines_and_edits_are_listed(desk: Desk, first: Desk) -> None:
    made = desk.edit("--line", first.id(3), "--text", "[red]By hand.")
    listed = desk.edit()
    assert listed == made
    texts = ["[red]By hand." if number == 3 else line["translation"] for number, line in enumerate(first.lines)]
    assert [(line["id"], line["text"]) for line in listed["lines"]] == list(zip(map(first.id, range(LINES)), texts, strict=True))
    assert [(edit["line"], edit["text"]) for edit in listed["edits"]] == [(first.id(3), "[red]By hand.")]
    shown = desk.do("edit", str(desk.lesson), "--plain").output
    assert all(text in shown for text in (*texts, *map(first.id, range(LINES))))


# Refused, in one line, with nothing done


def broken(desk: Desk) -> None:
    (desk.folder / "timeline.json").write_text('{"lines": [')


def contradictory(desk: Desk) -> None:
    desk.change(3, translation="One thing.")
    desk.rewrite("lesson.en.srt", said(3), "Another.")


@pytest.mark.parametrize(
    ("make", "code", "message"),
    [
        (broken, 10, "timeline.json: no JSON at line 1, column 12"),
        (lambda desk: (desk.folder / "lesson.en.srt").write_text("nothing"), 10, "lesson.en.srt: not SRT captions"),
        (contradictory, 10, "timeline.json and lesson.en.srt give it different translations"),
        (lambda desk: desk.change(3, start=1.0), 10, "only source_text, translation, voice and say can be changed here"),
        (lambda desk: desk.change(3, voice="nobody"), 21, "nobody"),
        (lambda desk: desk.change(3, translation="x" * 1001), 21, "the translation has 1001 characters"),
    ],
)
def test_a_folder_that_cannot_be_read_is_left_as_it_is(desk: Desk, make: Callable[[Desk], Any], code: int, message: str) -> None:
    make(desk)
    files = desk.files()
    for command in [desk.start(verb, str(desk.lesson)) for verb in ("plan", "dub")]:
        done = command.wait()
        assert (done.code, done.output) == (code, "")
        assert done.errors.startswith("coursedub: ") and len(done.errors.splitlines()) == 1
        assert message in done.errors
    assert (desk.files(), desk.uses()) == (files, [])


REFUSED: list[tuple[list[str], int, str]] = [
    (["--line", "nowhere", "--text", "x"], 10, "line nowhere: there is no such line"),
    (["--line", "LINE", "--voice", "nobody"], 21, "nobody"),
    (["--text", "x"], 21, "only pronunciations can be set for all lines"),
    (["--line", "LINE", "--silent", "--text", "x"], 21, "a silent line can't be given a text at once"),
    (["--line", "LINE", "--say", "word"], 21, '--say: give it as "WORD=RESPELLING"'),
    (["--line", "LINE", "--text", "x", "--undo"], 21, "--undo: takes edits back and can't make one at once"),
    (["--line", "LINE", "--split", "One."], 21, "it is split in 1 parts"),
    (["--line", "LINE", "--merge", "9"], 21, "can't be joined with the 9 following lines"),
    (["--undo", "nothing"], 10, "line nothing: it has no edits"),
    (["--undo", "all"], 10, "there is no edit to undo"),
    (["--line", "LINE", "--text", "x", "--to", "es"], 10, "dubbed into en here, not into es"),
]


def test_a_change_must_have_a_place_among_those_before_it(desk: Desk, first: Desk) -> None:
    desk.edit("--line", first.id(3), "--merge")
    done = desk.do("edit", str(desk.folder), "--line", first.id(3), "--text", "Too late.")
    assert (done.code, len(done.errors.splitlines())) == (10, 1)
    joined = next(line["id"] for line in desk.edit()["lines"] if line["text"] == f"{said(3)} {said(4)}")
    desk.edit("--line", joined, "--text", "Both at once.")
    result = desk.dub()
    assert became(result) == ["applied", "applied"]
    assert desk.uses() == ["synthesize Both at once."]


def test_an_edit_that_cannot_be_made_is_not_kept(first: Desk) -> None:
    commands = [
        first.start("edit", str(first.folder), *(option.replace("LINE", first.id(3)) for option in options)) for options, _, _ in REFUSED
    ]
    for command, (_, code, message) in zip(commands, REFUSED, strict=True):
        done = command.wait()
        assert (done.code, len(done.errors.splitlines())) == (code, bool(code))
        assert message in done.errors
    assert first.edit()["edits"] == []


def test_a_lesson_that_was_never_dubbed_cannot_be_edited(desk: Desk) -> None:
    other = make_lesson(desk.place / "other.mp4", 2, tone=700)
    cases: list[tuple[Path, list[str], int, str]] = [
        (other, [], 10, "other.mp4: it was not dubbed into en with the store"),
        (desk.lesson, ["--to", "es"], 10, "lesson.mp4: it was not dubbed into es"),
        (desk.place, [], 10, "no lesson was dubbed into this folder"),
        (desk.place / "nothing.mp4", [], 11, "nothing.mp4"),
    ]
    commands = [desk.start("edit", str(lesson), *options) for lesson, options, _, _ in cases]
    for command, (_, _, code, message) in zip(commands, cases, strict=True):
        done = command.wait()
        assert (done.code, len(done.errors.splitlines())) == (code, 1)
        assert message in done.errors


def test_a_folder_of_an_earlier_version_is_written_over(desk: Desk, first: Desk) -> None:
    document = desk.document()
    del document["checksum"], document["lesson_sha256"]
    for line in document["lines"]:
        del line["checksum"], line["say"], line["edited"]
    (desk.folder / "timeline.json").write_text(json.dumps(document))
    assert desk.dub()["edits"] == []
    assert desk.files() == first.files()


def test_captions_of_another_lesson_in_the_folder_are_not_this_ones(desk: Desk) -> None:
    (desk.folder / "another.en.srt").write_text("1\n01:00:00,000 --> 01:00:01,000\nQuite another lesson.\n")
    assert desk.dub()["edits"] == []


def test_a_voice_that_there_is_not_leaves_no_trace(desk: Desk, first: Desk) -> None:
    before = (desk.folder / "timeline.json").read_bytes()
    desk.change(2, voice="nobody")
    refused = desk.do("dub", str(desk.lesson))
    assert (refused.code, refused.errors.count("\n")) == (21, 1)
    (desk.folder / "timeline.json").write_bytes(before)
    assert desk.dub()["edits"] == []
    assert desk.files() == first.files()


def test_two_lessons_in_one_folder_keep_their_edits_apart(desk: Desk) -> None:
    desk.do("edit", str(desk.folder), "--line", desk.id(2), "--text", by_hand(2))
    desk.dub()
    other = make_lesson(desk.place / "other.mp4", 2 * LINES, tone=500)
    done = desk.do("dub", str(other), "--output", str(desk.folder)).result
    assert done["edits"] == []
    assert by_hand(2) not in desk.texts
