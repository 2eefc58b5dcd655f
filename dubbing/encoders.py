"""Which encoder makes a picture: the GPU's (NVENC) where it really works, else the processor's.

For pictures that are drawn on; nothing does yet: the lesson's own picture is copied as it is.

ffmpeg lists `h264_nvenc` on machines that have no GPU, and where there is one its driver may be too old or all its sessions taken. So it
is tried, with one small clip. Nothing else tells.
"""

from __future__ import annotations

import subprocess
from functools import cache

from dubbing.errors import BadSetting

NVENC = "h264_nvenc"
X264 = "libx264"
TRY_SIZE = "256x256"  # pixels: NVENC takes no picture narrower than 145
TRY_FRAMES = 8
TRY_TIMEOUT = 60.0  # seconds: a driver that hangs must not hold a lesson up; the first use of a GPU takes some


@cache
def video_encoder() -> str:
    """ffmpeg's name of the H.264 encoder to use; found once a process.

    Raises:
        BadSetting: none works; the message has the reason.
    """
    if failure_of(NVENC) is None:
        return NVENC
    if reason := failure_of(X264):
        raise BadSetting(f"no picture can be encoded: {X264}: {reason}")
    return X264


def failure_of(encoder: str) -> str | None:
    """Encode a small clip. None when that works, else the reason in one line."""
    command = ["ffmpeg", "-hide_banner", "-nostdin", "-loglevel", "error", "-f", "lavfi", "-i", f"color=size={TRY_SIZE}:rate=25"]
    command += ["-frames:v", str(TRY_FRAMES), "-pix_fmt", "yuv420p", "-c:v", encoder, "-f", "null", "-"]
    try:
        done = subprocess.run(command, capture_output=True, timeout=TRY_TIMEOUT, check=False)
    except FileNotFoundError:
        return "ffmpeg is not installed"
    except OSError as error:
        return f"ffmpeg can't be run ({error.strerror})"
    except subprocess.TimeoutExpired:
        return f"it gave no picture in {TRY_TIMEOUT:.0f} s"
    if done.returncode == 0:
        return None
    lines = [line for line in done.stderr.decode("utf-8", "replace").splitlines() if line.strip()]
    # The first line has the encoder's own reason; those after it say that therefore nothing was opened.
    return lines[0].rpartition("] ")[2].strip() if lines else f"ffmpeg ended with {done.returncode} and gave no reason"
