"""What a run would do, why, and what it would take: the story of `flows/dub_video.py` told without working.

Nothing is computed, nothing is written, no server is started and no weights are loaded.
"""

from __future__ import annotations

import tempfile
from pathlib import Path
from typing import Any

from prefect import flow
from prefect.artifacts import create_table_artifact

from blocks.engine import with_packages_of_another
from blocks.gpu_server import open_gpu_server, price_per_hour
from blocks.profiles import profile_named
from blocks.store import open_store
from dubbing import media, mixing
from flows import parameters as wished
from flows.dub_video import Wishes, check, dub_video, find, folder_name, given_terms, output_folder, story
from flows.imagine import imagine
from tasks.approval import ReviewWanted
from tasks.deliver import Made
from tasks.hand_over import noted_packages
from tasks.history import FIGURES, Run, runs_of
from tasks.planning import PlannedLine, PlannedStage, State, is_known
from tasks.review import Review
from tasks.stage import STAGES

LINE_EVERY = 6.0  # seconds of lesson: how many lines a lesson that was never heard has, about

_WEIGHT = {"cached": 0, "unknown": 1, "to compute": 2}  # of two uses of a stage in a run, the one that says more


@flow(name="plan")
def plan(
    source: wished.Lesson,
    target_language: wished.TargetLanguage = "en",
    source_language: wished.SourceLanguage = None,
    voice: wished.Voice = None,
    lecturer_voice: wished.LecturerVoice = None,
    captions: wished.Captions = "sentences",
    terms: wished.Terms = None,
    output: wished.Output = None,
    profile: wished.Profile = None,
    gpu_server: wished.GpuServer = None,
    separator: wished.Separator = None,
    recogniser: wished.Recogniser = None,
    translator: wished.Translator = None,
    speech: wished.Speech = None,
    loudness: wished.Loudness = mixing.TARGET_LOUDNESS,
    ducking: wished.Ducking = mixing.DUCKING,
    seed: wished.Seed = 0,
    store: wished.Store = None,
    max_megabytes: wished.MaxMegabytes = wished.MEGABYTES,
    max_hours: wished.MaxHours = wished.HOURS,
    review: wished.Review = "none",
    cost_per_hour: wished.CostPerHour = None,
) -> dict[str, Any]:
    """Say what dubbing a lesson would do, why, and what it would take. Computes nothing, starts nothing and wakes nothing."""
    planned = plan_lesson(**locals())
    description = f"{planned['lesson']['name']} into {planned['target_language']}: {estimate(planned)}"
    create_table_artifact(table=plan_rows(planned), key="plan", description=description)
    return planned


def plan_rows(planned: dict[str, Any]) -> list[dict[str, Any]]:
    """A plan as the rows of a table."""
    return [
        {
            "stage": stage["name"],
            "state": stage["state"],
            "lines": f"{stage['lines_to_compute']} of {len(stage['lines'])}" if "lines" in stage else "",
            "about": "" if stage["state"] == "cached" else "?" if stage["seconds"] is None else f"{stage['seconds']:.0f} s",
            "where": "" if stage["state"] == "cached" else "GPU server" if stage["on_gpu_server"] else "here",
            "why": stage["why"],
        }
        for stage in planned["stages"]
    ]


def estimate(planned: dict[str, Any]) -> str:
    """What it would take, in words."""
    more = " or more: some stages never ran" if planned["seconds_incomplete"] else ""
    cost = "" if planned["cost"] is None else f", {planned['cost']:.4g} at that price"
    wakes = {True: ", and wakes the GPU server", False: ", and doesn't wake the GPU server", None: ""}[planned["wakes_gpu_server"]]
    waits = f"; then its {planned['waits_for_review']} waits for a reviewer" if planned["waits_for_review"] else ""
    return f"about {planned['seconds']:.0f} s{more}{cost}{wakes}{waits}"


def plan_lesson(cost_per_hour: float | None = None, **wishes: Any) -> dict[str, Any]:
    """The plan of `dub_video(**wishes)`: every stage with its state, the reason, its lines, and an estimate from earlier runs.

    With a GPU server it is the price of that which counts, for what it would do. It isn't asked anything.

    Args:
        cost_per_hour: None is the GPU server's price, without one COURSEDUB_COST_PER_HOUR.

    Raises:
        BadInput: what the run would refuse.
        prefect.exceptions.ParameterTypeError: a parameter of the wrong kind.
    """
    parameters = dub_video.validate_parameters({name: value for name, value in wishes.items() if value is not None})
    families = ("separator", "recogniser", "translator", "speech")
    profile = profile_named(parameters["profile"], **{family: parameters[family] for family in families})
    engines = profile.engines()
    server = open_gpu_server(parameters["gpu_server"]) if parameters["gpu_server"] else None
    store = open_store(parameters["store"])
    asked = Wishes(**{name: parameters[name] for name in Wishes._fields} | {"terms": given_terms(parameters["terms"], store)})
    check(engines, asked)
    with tempfile.TemporaryDirectory() as scratch:
        limits = media.Limits(parameters["max_megabytes"], parameters["max_hours"])
        found = find(parameters["source"], Path(scratch), limits, store)
        folder = output_folder(parameters["output"], parameters["source"], folder_name(found, asked.target_language))
        runs = runs_of(store, found.sha256)
        reviewing = Review(store, found.sha256, asked.target_language, folder, only_look=True, name=found.name)

        def tell() -> Made:
            reviewing.look()
            return story(store, found, engines, asked, reviewing)

        with with_packages_of_another(noted_packages(store, server.server_id) if server else {}):
            plan, made = imagine(store, found.sha256, runs, tell)
    stages = _merged(plan.stages)
    figures = store.read_record(FIGURES) or {}
    lines = _number_of_lines(stages, runs, found.duration)
    rows = [_row(stage, figures, lines, found.duration) for stage in stages]
    for row, stage in zip(rows, stages, strict=True):
        row["on_gpu_server"] = server is not None and profile.on_gpu_server(stage.works_with)
    waits = made.stage if isinstance(made, ReviewWanted) else None
    edits = [outcome.edit for outcome in made.revision.outcomes] if not isinstance(made, ReviewWanted) and is_known(made.revision) else []
    for row in rows:
        if edits and row["state"] == "to compute" and "translation changed" in row["why"]:
            row["why"] += f" ({len(edits)} edit{'' if len(edits) == 1 else 's'} of a reviewer)"
    price = price_per_hour() if server is None else server.price_per_hour or None
    price = price if cost_per_hour is None else cost_per_hour
    to_do = [row for row in rows if row["state"] != "cached"]
    known = sum(row["seconds"] or 0.0 for row in to_do)
    costing = sum(row["seconds"] or 0.0 for row in to_do if server is None or row["on_gpu_server"])
    return {
        "lesson": {"name": found.name, "sha256": found.sha256, "duration": found.duration},
        "target_language": asked.target_language,
        "output_dir": str(folder),
        "edits": edits,
        "stages": rows,
        "seconds": round(known, 1),
        "seconds_incomplete": any(row["seconds"] is None for row in to_do),
        "cost": None if price is None else round(costing / 3600 * price, 4),
        "waits_for_review": waits,
        "wakes_gpu_server": None if server is None else any(row["on_gpu_server"] for row in to_do),
    }


def _merged(planned: list[PlannedStage]) -> list[PlannedStage]:
    """One entry a stage, in the order of their first use: a story uses some more than once."""
    merged: dict[str, PlannedStage] = {}
    for entry in planned:
        before = merged.get(entry.stage)
        if before is None:
            merged[entry.stage] = entry
        else:
            stronger = max(before, entry, key=lambda one: _WEIGHT[one.state])
            merged[entry.stage] = stronger._replace(lines=_merged_lines(before.lines, entry.lines))
    return list(merged.values())


def _merged_lines(before: tuple[PlannedLine, ...] | None, after: tuple[PlannedLine, ...] | None) -> tuple[PlannedLine, ...] | None:
    if before is None or after is None:
        return before or after
    lines = {line.ids: line for line in before}
    for line in after:
        known = lines.get(line.ids)
        lines[line.ids] = line if known is None else max(known, line, key=lambda one: _WEIGHT[one.state])
    return tuple(lines.values())


def _number_of_lines(stages: list[PlannedStage], runs: list[Run], duration: float) -> tuple[int, int]:
    """How many lines the lesson has, and how many of them are new, as far as that can be told before."""
    counted = [sum(len(line.ids) for line in stage.lines) for stage in stages if stage.lines is not None]
    new = [sum(len(line.ids) for line in stage.lines if line.state != "cached") for stage in stages if stage.lines is not None]
    earlier = [(entry.lines_computed or 0) + (entry.lines_cached or 0) for run in runs for entry in run.stages]
    lines = max([*counted, *earlier[-20:]], default=0) or round(duration / LINE_EVERY)
    return lines, max(new) if any(new) else lines


def _row(stage: PlannedStage, figures: dict[str, Any], lines: tuple[int, int], duration: float) -> dict[str, Any]:
    state: State = stage.state
    row: dict[str, Any] = {"name": stage.stage, "state": state, "why": stage.why, "seconds": 0.0}
    to_compute = lines[1]
    if stage.lines is not None:
        row["lines"] = [{"id": name, "state": line.state, "why": line.why} for line in stage.lines for name in line.ids]
        row["lines_to_compute"] = to_compute = sum(line["state"] != "cached" for line in row["lines"])
        row["lines_cached"] = len(row["lines"]) - to_compute
    if state != "cached":
        known = figures.get(stage.stage, {})
        figure: dict[str, Any] = known.get(stage.engines) or next(iter(known.values()), {})
        if "a_line" in figure and STAGES[stage.stage].per_line:
            row["seconds"] = round(figure.get("fixed", 0.0) + figure["a_line"] * to_compute, 1)
        elif "a_second" in figure:
            row["seconds"] = round(figure["a_second"] * duration, 1)
        else:
            row["seconds"] = None
    return row
