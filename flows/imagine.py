"""The story of a run told without working, until nothing that it would open is found gone."""

from __future__ import annotations

from collections.abc import Callable, Sequence

from blocks.store import Store, artifacts_in
from dubbing.lesson import Artifact
from tasks.approval import ReviewWanted
from tasks.deliver import Made, delivered
from tasks.history import Run
from tasks.planning import Plan, imagined, is_known


def imagine(store: Store, lesson: str, runs: Sequence[Run], tell: Callable[[], Made]) -> tuple[Plan, Made | ReviewWanted]:
    """The plan, and what the story comes to: all of it, or a review that it has to wait for.

    Args:
        lesson: sha256 of the recording.
        runs: earlier ones of it, for the reasons.
        tell: the story.
    """
    while True:
        plan = Plan(lesson, runs)
        made: Made | ReviewWanted
        with imagined(plan):
            try:
                made = tell()
            except ReviewWanted as wanted:
                made = wanted
        # What would be opened and is gone would be made again: as the run does, imagine again without it.
        gone = store.missing([*plan.needed, *(_opened_at_the_end(made) if isinstance(made, Made) else ())])
        if not gone:
            return plan, made
        store.distrust(artifact.sha256 for artifact in gone)


def _opened_at_the_end(made: Made) -> list[Artifact]:
    """The blobs that go into the lesson's folder, when all of them are known."""
    return list(artifacts_in(delivered(made))) if all(is_known(value) for value in made) else []
