"""The plan says what a run would do, and that is what the run does. Also: which stages' keys depend on what."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

import pytest

from blocks.store import Store
from tasks.history import read_runs, runs_of
from tests.conftest import Bucket
from tests.flows.stand_in_runs import CALM, LONG_WORDED, Lab, Place, Run, contents, in_bucket, local
from tests.seaweed import Seaweed

pytestmark = pytest.mark.usefixtures("prefect_server")


@pytest.fixture(scope="module")
def lab(prefect_server: None, tmp_path_factory: pytest.TempPathFactory) -> Lab:
    return Lab(tmp_path_factory.mktemp("lab"))


def settings(**families: dict[str, Any]) -> dict[str, str]:
    """The environment for engines with other settings."""
    families["translator"] = {"style": LONG_WORDED} | families.get("translator", {})
    return {"STAND_INS_SETTINGS": json.dumps(families)}


def command(
    lab: Lab, verb: str, place: Place, folder: Path, *options: str, lesson: Path | None = None, **environment: str
) -> dict[str, Any]:
    arguments = [verb, str(lesson or lab.lesson), "--store", place.store.folder, "--output", str(folder / "output"), "--json"]
    run = Run([*arguments, "--captions", "words", *options], folder / "notes", CALM, {**place.environment, **environment})
    done = run.wait()
    assert done.code == 0, done.errors
    return done.result


def planned_and_done(lab: Lab, place: Place, folder: Path, *options: str, **environment: str) -> dict[str, Any]:
    """Plan, then run, and compare. Returns the plan's stages by name."""
    before = {found.name: found for found in place.store.files.found("")}
    plan = command(lab, "plan", place, folder, *options, **environment)
    assert {found.name: found for found in place.store.files.found("")} == before, "a plan writes nothing"
    assert not (folder / "output").exists()
    assert not (folder / "notes" / "uses").exists(), "a plan computes nothing"
    done = command(lab, "dub", place, folder, *options, **environment)
    ran = {stage["name"]: stage for stage in done["stages"]}
    for stage in plan["stages"]:
        name = stage["name"]
        if stage["state"] == "cached":
            assert ran[name]["state"] == "cached", name
        if stage["state"] == "to compute":
            assert ran[name]["state"] == "computed", name
            assert stage["why"]
        if stage["state"] == "to compute" and "lines" in stage and "lines_computed" in ran[name]:
            # A stage that runs more than once in a run plans its first time: later ones depend on it.
            assert stage["lines_to_compute"] <= ran[name]["lines_computed"], name
    assert {stage["name"] for stage in plan["stages"]} <= {*ran, "shorten"}
    return {stage["name"]: stage for stage in plan["stages"]}


def by_state(plan: dict[str, Any], state: str) -> set[str]:
    return {name for name, stage in plan.items() if stage["state"] == state}


def test_a_lesson_that_was_never_dubbed(lab: Lab, tmp_path: Path) -> None:
    plan = planned_and_done(lab, local(tmp_path / "store"), tmp_path)
    assert plan["ingest"]["state"] == "to compute"
    assert plan["ingest"]["why"] == "never computed for this lesson"
    assert by_state(plan, "cached") == set()


def test_a_lesson_that_is_finished(lab: Lab, tmp_path: Path) -> None:
    plan = planned_and_done(lab, lab.copy_of_whole(tmp_path / "store"), tmp_path)
    assert by_state(plan, "cached") == set(plan)
    assert set(plan) == set(lab.stages)


@pytest.mark.parametrize(
    ("options", "environment", "stage", "why", "unknown"),
    [
        (["--loudness", "-20"], {}, "mix", "loudness -16.0 → -20.0", {"render", "inspect"}),
        (["--ducking", "9"], {}, "mix", "ducking 6.0 → 9.0", {"render", "inspect"}),
        (["--seed", "7"], {}, "synthesize", "seed 0 → 7", None),
        (["--voice", "viktor"], {}, "synthesize", "voice vera → viktor", None),
        (["--from", "ru"], {}, "transcribe", "language none → ru", None),
        ([], settings(translator={"note": "b"}), "translate", "translator.settings.note  → b", None),
        ([], settings(separator={"style": "b"}), "separate", "separator.settings.style a → b", {"synthesize", "fit", "mix", "render"}),
        ([], settings(speech={"threads": 3}), "", "", set()),
    ],
)
def test_another_setting_names_itself(
    lab: Lab, tmp_path: Path, options: list[str], environment: dict[str, str], stage: str, why: str, unknown: set[str] | None
) -> None:
    plan = planned_and_done(lab, lab.copy_of_whole(tmp_path / "store"), tmp_path, *options, **environment)
    assert by_state(plan, "to compute") == ({stage} if stage else set())
    if stage:
        assert plan[stage]["why"] == why
    if unknown is not None:
        assert unknown <= by_state(plan, "unknown")


def test_a_changed_line_is_one_line_and_says_what_it_was(lab: Lab, tmp_path: Path) -> None:
    place = lab.copy_of_whole(tmp_path / "store")
    line = json.loads((lab.folder / "expected" / "timeline.json").read_text())["lines"][3]
    arguments = ["edit", str(lab.lesson), "--store", place.store.folder, "--line", line["id"], "--text", "Something else.", "--json"]
    assert Run(arguments, tmp_path / "edit", CALM, {}).wait().code == 0
    plan = planned_and_done(lab, place, tmp_path)
    changed = [one for one in plan["synthesize"]["lines"] if one["state"] == "to compute"]
    assert [one["id"] for one in changed] == [line["id"]]
    assert changed[0]["why"] == f"text {line['translation']} → Something else."


def test_what_was_lost_is_planned_and_made_again(lab: Lab, tmp_path: Path) -> None:
    place = lab.copy_of_whole(tmp_path / "store")
    video = contents(lab.folder / "expected")["lesson.en.mp4"]
    (place.folder / "blobs" / video[:2] / video).unlink()
    plan = planned_and_done(lab, place, tmp_path)
    assert by_state(plan, "to compute") == {"render"}
    assert "gone" in plan["render"]["why"]


def test_a_lost_clip_is_no_loss_until_somebody_needs_it(lab: Lab, tmp_path: Path) -> None:
    place = lab.copy_of_whole(tmp_path / "store")
    [run] = runs_of(place.store, lab.sha256)
    clips = [place.store.read_result(entry.key) for entry in run.stages if entry.stage == "synthesize"]
    lost = clips[-1]["lines"][0]["media"]["sha256"]
    (place.folder / "blobs" / lost[:2] / lost).unlink()
    assert by_state(planned_and_done(lab, place, tmp_path / "untouched"), "cached") == set(lab.stages)


def test_estimates_come_from_earlier_runs_and_cost_is_time_times_price(lab: Lab, tmp_path: Path) -> None:
    place = lab.copy_of_whole(tmp_path / "store")
    cached = command(lab, "plan", place, tmp_path, "--cost-per-hour", "36")
    assert (cached["seconds"], cached["cost"]) == (0.0, 0.0)
    other = command(lab, "plan", place, tmp_path, "--ducking", "9", "--cost-per-hour", "36")
    stages = {stage["name"]: stage for stage in other["stages"]}
    assert stages["mix"]["seconds"] > 0
    assert other["seconds"] == pytest.approx(sum(stage["seconds"] for stage in other["stages"]), abs=0.2)
    assert other["cost"] == pytest.approx(other["seconds"] / 100, abs=0.01)
    assert other["seconds_incomplete"] is False
    fresh = command(lab, "plan", local(tmp_path / "empty"), tmp_path)
    assert fresh["seconds_incomplete"] is True
    assert not (tmp_path / "empty").exists()


def test_the_same_file_elsewhere_under_another_name_is_the_same_lesson(lab: Lab, tmp_path: Path) -> None:
    moved = tmp_path / "another name — копия.mp4"
    shutil.copy(lab.lesson, moved)
    plan = command(lab, "plan", lab.copy_of_whole(tmp_path / "store"), tmp_path, lesson=moved)
    assert {stage["state"] for stage in plan["stages"]} == {"cached"}


def test_a_plan_of_a_lesson_in_a_bucket_downloads_nothing(lab: Lab, tmp_path: Path, seaweed: Seaweed, bucket: Bucket) -> None:
    place = in_bucket(bucket, tmp_path / "working", seaweed.environment())
    arguments = ["copy", lab.whole.store.folder, bucket.address, "--json"]
    assert Run(arguments, tmp_path / "copy", CALM, place.environment).wait().code == 0
    shutil.rmtree(tmp_path / "working")
    plan = command(lab, "plan", place, tmp_path)
    assert {stage["state"] for stage in plan["stages"]} == {"cached"}
    assert not (tmp_path / "working").exists()
    done = command(lab, "dub", place, tmp_path)
    assert {stage["state"] for stage in done["stages"]} == {"cached"}
    assert contents(tmp_path / "output") == lab.expected, "a machine with an empty disk replays from the bucket alone"


# Which keys depend on what


def keys(store: Store, sha256: str) -> dict[str, set[str]]:
    """Records that the newest run used, by stage."""
    run = max(read_runs(store, [found.name for found in store.files.found(f"lessons/{sha256}/")]), key=lambda run: run.started)
    found: dict[str, set[str]] = {}
    for entry in run.stages:
        found.setdefault(entry.stage, set()).add(entry.key)
    return found


@pytest.mark.parametrize(
    ("environment", "depending"),
    [
        (settings(separator={"note": "b"}), {"separate"}),
        (settings(recogniser={"note": "b"}), {"transcribe", "subtitles", "inspect"}),
        (settings(translator={"note": "b"}), {"translate", "shorten"}),
        (settings(speech={"note": "b"}), {"synthesize"}),
        (settings(separator={"threads": 2}, recogniser={"threads": 2}, translator={"threads": 2}, speech={"threads": 2}), set()),
        ({"STAND_INS_VERSIONS": json.dumps({"separator": "2"})}, {"separate"}),
        ({"STAND_INS_VERSIONS": json.dumps({"recogniser": "2"})}, {"transcribe", "subtitles", "inspect"}),
        ({"STAND_INS_VERSIONS": json.dumps({"translator": "2"})}, {"translate", "shorten"}),
        ({"STAND_INS_VERSIONS": json.dumps({"speech": "2"})}, {"synthesize"}),
    ],
)
def test_what_changes_an_engine_changes_the_keys_of_its_stages_and_no_other(
    lab: Lab, tmp_path: Path, environment: dict[str, str], depending: set[str]
) -> None:
    """The stand-ins give the same results all the same: what follows keeps its keys, since they are made of contents."""
    place = lab.copy_of_whole(tmp_path / "store")
    before = keys(place.store, lab.sha256)
    command(lab, "dub", place, tmp_path, **environment)
    after = keys(place.store, lab.sha256)
    assert {stage for stage in after if after[stage] != before[stage]} == depending
    assert contents(tmp_path / "output") == lab.expected
