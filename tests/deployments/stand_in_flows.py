"""The flows for a worker's process, on stand-in engines (`tests.stand_ins`) and with a heartbeat each second.

Prefect knows no heartbeat that is more frequent than 30 s; what waits for one that doesn't come would take as long.
"""

from __future__ import annotations

import os

import prefect.flow_engine

from flows.compute_stages import compute_stages
from flows.dub_course import dub_course
from flows.dub_video import dub_video
from flows.plan_lesson import plan
from tests.stand_ins import stand_in

__all__ = ["compute_stages", "dub_course", "dub_video", "plan"]

if "PREFECT__FLOW_RUN_ID" in os.environ:  # not where pytest looks for tests in this file
    prefect.flow_engine.MINIMUM_HEARTBEAT_INTERVAL = 1
    prefect.flow_engine.BaseFlowRunEngine.heartbeat_seconds = 1  # type: ignore[assignment, method-assign]
    stand_in()
