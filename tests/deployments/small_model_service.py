"""The Chatterbox service with the small model as a process of its own:  python -m tests.deployments.small_model_service PORT [SECONDS]

SECONDS is what each line takes. Its settings are the service's own, from the environment.
"""

from __future__ import annotations

import sys
import time
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parents[2] / "deployments" / "gpu_server" / "chatterbox"))

import uvicorn
from chatterbox_service.app import create_app
from chatterbox_service.settings import Settings

from tests.deployments.small_service import ToneModel


def main(port: str, seconds: str = "0") -> None:
    model = ToneModel()
    model.letter = 0.06
    model.length = lambda seed: time.sleep(float(seconds))
    uvicorn.run(create_app(Settings(), lambda: model), host="127.0.0.1", port=int(port), log_level="critical")


if __name__ == "__main__":
    main(*sys.argv[1:])
