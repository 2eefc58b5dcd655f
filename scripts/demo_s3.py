"""What `make demo-s3` shows: a lesson dubbed into a bucket, then once more by a machine with an empty disk, which computes nothing.

The bucket is on a SeaweedFS server that runs only meanwhile. With an account in the environment (AWS_ENDPOINT_URL, AWS_ACCESS_KEY_ID, …)
and an address as argument it is done there instead:  python scripts/demo_s3.py s3://bucket/prefix
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
import tempfile
from collections.abc import Mapping
from contextlib import ExitStack
from pathlib import Path
from typing import Any

ROOT = Path(__file__).parent.parent
LESSON = ROOT / "samples" / "lesson_ru.mp4"
sys.path.insert(0, str(ROOT))


def dub(address: str, working: Path, output: Path, environment: Mapping[str, str]) -> dict[str, Any]:
    """Dub the sample as a machine does that has nothing but this working folder."""
    command = [sys.executable, "-m", "flows.command_line", "dub", str(LESSON), "--to", "en", "--store", address, "--output", str(output)]
    settings = {**os.environ, **environment, "COURSEDUB_WORKING_FOLDER": str(working)}
    done = subprocess.run([*command, "--json"], cwd=ROOT, env=settings, stdout=subprocess.PIPE, text=True, check=False)
    if done.returncode:
        sys.exit(done.returncode)
    result: dict[str, Any] = json.loads(done.stdout.splitlines()[-1])
    states = [stage["state"] for stage in result["stages"]]
    print(f"  {states.count('computed')} stages computed, {states.count('cached')} cached, {result['seconds']:.1f} s: {output}")
    return result


def main() -> int:
    with ExitStack() as stack:
        environment: dict[str, str] = {}
        if len(sys.argv) > 1:
            address = sys.argv[1]
        else:
            from tests.seaweed import seaweed

            server = stack.enter_context(seaweed())
            server.make_bucket("demo")
            environment, address = server.environment(), "s3://demo/coursedub"
        first, second = (Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="coursedub-working-"))) for _ in range(2))
        print(f"Dubbing {LESSON.name} with its results in {address}")
        dub(address, first, ROOT / "demo", environment)
        print("The same by a machine whose disk is empty")
        again = dub(address, second, ROOT / "demo-replayed", environment)
    computed = [stage["name"] for stage in again["stages"] if stage["state"] == "computed"]
    different = [path.name for path in (ROOT / "demo").iterdir() if path.read_bytes() != (ROOT / "demo-replayed" / path.name).read_bytes()]
    if computed or different:
        print(f"It should have replayed everything, but computed {computed} and wrote otherwise {different}", file=sys.stderr)
        return 1
    print("Every stage was found in the bucket, and every file is the same byte for byte.")
    return 0


if __name__ == "__main__":
    sys.exit(main())
