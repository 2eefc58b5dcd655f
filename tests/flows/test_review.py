"""A lesson that a person has to approve: runs that end, and are answered from the command line."""

from __future__ import annotations

import csv
import json
from collections import Counter
from pathlib import Path
from typing import Any

import pytest

from tests.flows.stand_in_runs import CALM, Done, Lab, Run, local
from tests.stand_ins import uses

pytestmark = pytest.mark.usefixtures("prefect_server")


@pytest.fixture(scope="module")
def lab(prefect_server: None, tmp_path_factory: pytest.TempPathFactory) -> Lab:
    return Lab(tmp_path_factory.mktemp("lab"))


class Desk:
    """A lesson under review."""

    def __init__(self, lab: Lab, folder: Path, stage: str) -> None:
        self.lab, self.folder, self.stage, self.store = lab, folder, stage, local(folder / "store").store.folder

    def run(self, *arguments: str | Path) -> Done:
        return Run([*arguments, "--store", self.store, "--json"], self.folder / "notes", CALM, {}).wait()

    def dub(self, *options: str) -> dict[str, Any]:
        return self.run("dub", self.lab.lesson, "--output", self.folder / "output", "--review", self.stage, *options).result

    def review(self, *options: str) -> Done:
        return self.run("review", self.lab.lesson, *options)

    def edit(self, line: str, text: str) -> None:
        assert self.run("edit", self.lab.lesson, "--line", line, "--text", text).code == 0

    def done(self) -> Counter[str]:
        return Counter(use.split()[0] for use in uses(self.folder / "notes" / "uses"))

    def texts(self) -> list[str]:
        return [row["translation"] for row in csv.DictReader((self.folder / "output" / "lines.csv").open())]


@pytest.fixture
def translation(lab: Lab, tmp_path: Path) -> Desk:
    return Desk(lab, tmp_path, "translation")


@pytest.fixture
def voiceover(lab: Lab, tmp_path: Path) -> Desk:
    return Desk(lab, tmp_path, "voiceover")


def state(result: dict[str, Any]) -> str:
    return str(result.get("review", {}).get("state", "finished"))


def test_nothing_is_spoken_before_the_translation_is_approved(translation: Desk) -> None:
    first = translation.dub()
    assert (state(first), first["review"]["stage"], first["files"]) == ("in review", "translation", {})
    assert translation.done()["translate"] > 0 and translation.done()["synthesize"] == 0
    assert state(translation.dub()) == "in review", "asking again changes nothing"
    assert translation.review("--approve", "--reviewer", "Anna").code == 0
    assert state(translation.dub()) == "finished"
    assert (translation.folder / "output" / "index.html").exists()
    assert translation.done()["shorten"] == 0, "approved words stand, however long"
    assert state(translation.dub()) == "finished", "the approval holds for what was approved"


def test_a_translation_is_approved_with_changes(translation: Desk, lab: Lab) -> None:
    translation.dub()
    translation.edit(lab.lines[2], "The reviewer's own words.")
    assert translation.review("--approve").code == 0
    assert state(translation.dub()) == "finished"
    assert translation.texts()[2] == "The reviewer's own words."


def test_what_changed_after_the_approval_is_asked_for_again(translation: Desk, lab: Lab) -> None:
    translation.dub()
    translation.review("--approve")
    translation.edit(lab.lines[1], "Changed behind the reviewer's back.")
    assert state(translation.dub()) == "in review"
    assert translation.review("--approve").code == 0
    assert state(translation.dub()) == "finished"


def test_a_voiceover_is_delivered_and_waits(voiceover: Desk, lab: Lab) -> None:
    first = voiceover.dub()
    assert state(first) == "in review" and (voiceover.folder / "output" / first["files"]["video"]).exists()
    before = voiceover.done()
    voiceover.edit(lab.lines[0], "Heard and corrected.")
    assert voiceover.review("--approve").code == 0
    last = voiceover.dub()
    assert state(last) == "finished" and voiceover.texts()[0] == "Heard and corrected."
    assert voiceover.done()["synthesize"] - before["synthesize"] == 1, "only the changed line was spoken"
    assert voiceover.done()["translate"] == before["translate"]


def test_what_was_rejected_is_asked_for_again_and_the_reason_is_kept(voiceover: Desk) -> None:
    voiceover.dub()
    answer = json.loads(voiceover.review("--reject", "Line 3 is nonsense", "--reviewer", "Anna").output)
    assert (answer["decision"], answer["reason"], answer["reviewer"]) == ("reject", "Line 3 is nonsense", "Anna")
    assert state(voiceover.dub()) == "in review"
    assert voiceover.review("--approve").code == 0
    assert state(voiceover.dub()) == "finished"


def test_an_answer_that_nobody_asked_for_is_refused_and_one_that_comes_twice_too(voiceover: Desk) -> None:
    nobody = voiceover.review("--approve")
    assert nobody.code == 10 and "no review of this lesson waits" in nobody.errors
    voiceover.dub()
    assert voiceover.review("--approve").code == 0
    assert voiceover.review("--reject", "too late").code == 10
    assert state(voiceover.dub()) == "finished", "the first answer holds"


def test_a_plan_says_that_it_waits(translation: Desk) -> None:
    plan = translation.run("plan", translation.lab.lesson, "--review", "translation").result
    assert plan["waits_for_review"] is None, "nobody knows the translation yet"
    translation.dub()
    plan = translation.run("plan", translation.lab.lesson, "--review", "translation").result
    assert plan["waits_for_review"] == "translation"
    assert {stage["name"]: stage["state"] for stage in plan["stages"]}.keys() >= {"translate"}
    assert all(stage["state"] == "cached" for stage in plan["stages"])
