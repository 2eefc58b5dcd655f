"""Keep the GPU server as it is wanted: the reaper, which runs on a schedule, and a person's orders from the UI.

On a schedule, each minute say, it makes one pass and drives down only: whoever needs the server wakes it, and whatever became of them, it
is shelved when no lease holds and the grace is over. It belongs on a machine that does not go down with the GPU server.
"""

from __future__ import annotations

from typing import Annotated, Any, Literal

from prefect import flow, get_run_logger
from prefect.artifacts import create_table_artifact
from pydantic import Field

from blocks.gpu_server import open_gpu_server
from blocks.keeper import Keeper
from dubbing.errors import PersonNeeded
from flows import gpu
from tasks.alerts import LIMIT_REACHED, PERSON_NEEDED, alert, over


@flow(name="keep-gpu-server")
def keep_gpu_server(
    gpu_server: Annotated[
        str | None,
        Field(title="GPU server", description="A saved block's name, or the server's id in its cloud; COURSEDUB_GPU_SERVER when empty."),
    ] = None,
    order: Annotated[
        Literal["up", "down", "forbid", "lift"] | None,
        Field(
            title="Order",
            description="up: wake it and hold it up. down: shelve it without waiting for more work. forbid: nobody may use it. lift: take "
            "the last order back. Empty: shelve it if nobody needs it.",
        ),
    ] = None,
    hours: Annotated[
        float | None, Field(gt=0, le=24 * 31, title="Hours", description="How long the order holds; when empty, up is for an hour.")
    ] = None,
    reason: Annotated[str, Field(max_length=200, title="Reason", description="Of the order, for others to read.")] = "",
    person: Annotated[str, Field(max_length=100, title="Person", description="Who gives the order.")] = "somebody in the UI",
) -> dict[str, Any]:
    """One pass, or an order and the passes that it takes. Returns how the server stands."""
    log = get_run_logger()
    server = open_gpu_server(gpu_server)
    keeper = Keeper(server)
    up_before = keeper.leases.facts().up_since
    hopeless = ""
    if order:
        gpu.order(server, order, person, reason, hours, watch=lambda made: log.info("%s", made.decision.why))
    elif (made := keeper.make_pass(wakes=False)) is None:
        log.info("Another keeper makes a pass just now.")
    else:
        log.info("%s: %s", made.wanted.why, made.decision.why)
        hopeless = made.decision.tell if made.decision.hopeless else ""
    now = gpu.status(server)
    if now["tell"]:
        log.warning("%s", now["tell"])
    for event, text in ((PERSON_NEEDED, now["tell"]), (LIMIT_REACHED, gpu.limit_reached(now))):
        if text:
            alert(event, server.server_id, text)
        else:
            over(event, server.server_id)
    if order or keeper.leases.facts().up_since != up_before:
        past = gpu.history(server)
        description = f"GPU server: {past['hours']:.2f} h in {past['days']:g} days, cost {past['cost']:.2f}, idle {past['idle_cost']:.2f}"
        create_table_artifact(table=gpu.history_rows(past), key="gpu-server-history", description=description)
    server.close()
    if hopeless:
        raise PersonNeeded(f"GPU server: {hopeless}")
    return now
