"""`python -m chatterbox_service`: serve until told to stop. A model whose device failed ends the service, so that it is started afresh."""

from __future__ import annotations

import logging
import sys
from functools import partial

import uvicorn

from chatterbox_service.app import create_app
from chatterbox_service.model import load
from chatterbox_service.settings import Settings


def main() -> int:
    logging.basicConfig(level=logging.INFO, format="%(levelname)s %(name)s: %(message)s")
    settings = Settings()
    app = create_app(settings, partial(load, settings))
    server = uvicorn.Server(uvicorn.Config(app, host=settings.host, port=settings.port, log_config=None))
    service = app.state.service
    service.on_broken = partial(setattr, server, "should_exit", True)
    server.run()
    return 1 if service.broken or not server.started else 0


if __name__ == "__main__":
    sys.exit(main())
