"""Libraries that would report home are told not to: what is dubbed on a machine, and that it is, stays there."""

from __future__ import annotations

import os

_SILENCE = {
    "DO_NOT_TRACK": "1",
    "ORT_DISABLE_TELEMETRY": "1",  # ONNX Runtime 1.29 and later send Microsoft names and hashes of models unless told not to
    "HF_HUB_DISABLE_TELEMETRY": "1",
    "PREFECT_SERVER_ANALYTICS_ENABLED": "false",
    "PYANNOTE_METRICS_ENABLED": "false",  # the length of each recording, and how many people speak in it
}


def report_nothing() -> None:
    """Set what the libraries look at, before they are loaded, for this process and its children. What is set already stays."""
    for name, value in _SILENCE.items():
        os.environ.setdefault(name, value)
