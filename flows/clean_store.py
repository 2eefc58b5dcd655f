"""Clean a store: remove what nobody has used for a while. Run by hand or on a schedule."""

from __future__ import annotations

from typing import Annotated, Any

from prefect import flow
from prefect.artifacts import create_table_artifact
from prefect.context import FlowRunContext
from pydantic import Field

from blocks.store import Store, open_store
from flows import parameters
from tasks import clean
from tasks.clean import Policy


@flow(name="clean-store")
def clean_store(
    store: parameters.Store = None,
    audio_days: Annotated[
        float, Field(ge=0, title="Days for sounds", description="Since their last use, after which they go.")
    ] = clean.AUDIO_DAYS,
    video_days: Annotated[float, Field(ge=0, title="Days for videos", description="Likewise.")] = clean.VIDEO_DAYS,
    other_days: Annotated[
        float, Field(ge=0, title="Days for all else", description="Records, subtitles and pictures, likewise.")
    ] = clean.OTHER_DAYS,
    megabytes: Annotated[
        float | None,
        Field(
            ge=0,
            allow_inf_nan=False,
            title="Down to MB",
            description="Size of the store to come down to; the lessons unused for longest go first.",
        ),
    ] = None,
    lessons: Annotated[
        list[str] | None,
        Field(title="Only these lessons", description="SHA-256 of recordings of which everything goes; then nothing goes by age."),
    ] = None,
    with_edits: Annotated[bool, Field(title="With edits", description="The reviewers' edits of these lessons too.")] = False,
    keep: Annotated[list[str] | None, Field(title="Keep these lessons", description="SHA-256 of recordings of which nothing goes.")] = None,
    dry_run: Annotated[bool, Field(title="Dry run", description="Only say what would go, and how much.")] = False,
) -> dict[str, Any]:
    """Remove what a policy lets go. Returns what went, by kind and reason."""
    size = None if megabytes is None else round(megabytes * 1e6)
    policy = Policy(audio_days, video_days, other_days, size, frozenset(lessons or ()), with_edits, frozenset(keep or ()))
    return cleaned(open_store(store), policy, dry_run)


def cleaned(store: Store, policy: Policy, dry_run: bool) -> dict[str, Any]:
    """What `clean_store` does, for a store that is open."""
    removals = clean.removals(store, policy)
    if not dry_run:
        clean.remove(store, removals)
    rows = clean.by_kind(removals)
    if FlowRunContext.get():
        create_table_artifact(table=rows, key="cleaned", description=f"{store.where}: {'would be ' if dry_run else ''}removed")
    return {
        "store": store.where,
        "dry_run": dry_run,
        "files": sum(row["files"] for row in rows),
        "bytes": sum(row["bytes"] for row in rows),
        "removed": rows,
        "names": [removal.name for removal in removals],
    }
