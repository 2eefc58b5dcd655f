"""Where things of this user's lie on this machine."""

from __future__ import annotations

import os
from pathlib import Path


def user_cache() -> Path:
    """The project's folder in the user's cache, as the XDG base directory specification has it."""
    return Path(os.environ.get("XDG_CACHE_HOME") or "~/.cache").expanduser() / "coursedub"


def user_state() -> Path:
    """The project's folder for what is kept between runs and isn't a cache; a service's own under systemd."""
    given = os.environ.get("STATE_DIRECTORY")  # systemd.exec(5): several have colons between
    if given:
        return Path(given.partition(":")[0])
    return Path(os.environ.get("XDG_STATE_HOME") or "~/.local/state").expanduser() / "coursedub"
