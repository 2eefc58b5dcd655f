"""Models by name: what stands for them in a key, and what a person reads when one can't be had. The hub is played by a server that answers
as the real one does."""

from __future__ import annotations

import hashlib
import http.server
import json
import os
import subprocess
import sys
import threading
from collections.abc import Iterator
from pathlib import Path

import pytest

from dubbing import hub, weights
from dubbing.errors import BadSetting

ROOT = Path(__file__).parents[2]
COMMIT = "3533c8cf8e369892e6b79ff1bf80f7b0286a54ee"
FILES = {"config.yaml": b"version: 4\n", "segmentation/pytorch_model.bin": b"weights" * 100, "flax_model.msgpack": b"unused"}


class Hub(http.server.BaseHTTPRequestHandler):
    """What Hugging Face answers: a repository that is open, one with conditions, one that there is none, one that fails."""

    tokens: list[str | None]

    def do_HEAD(self) -> None:
        self.do_GET()

    def do_GET(self) -> None:
        self.server.asked.append(f"{self.command} {self.path}")  # type: ignore[attr-defined]
        owner = self.path.removeprefix("/api/models").strip("/").split("/")[0]
        if owner == "gated" and self.headers.get("Authorization") != "Bearer hf_good":
            return self._answer(403, b"{}", {"X-Error-Code": "GatedRepo", "X-Error-Message": "Access to model gated/model is restricted."})
        if owner == "missing":
            return self._answer(404, b"{}", {"X-Error-Code": "RepoNotFound", "X-Error-Message": "Repository not found"})
        if owner == "broken":
            return self._answer(500, b"oh no", {})
        if "/tree/" in self.path:
            files = [
                {"type": "file", "path": name, "size": len(FILES[name]), "oid": hashlib.sha1(FILES[name]).hexdigest()} for name in FILES
            ]
            return self._answer(200, json.dumps(files).encode(), {"Content-Type": "application/json"})
        if self.path.startswith("/api/models"):
            siblings = [{"rfilename": name} for name in FILES]
            answer = {
                "id": f"{owner}/model",
                "modelId": f"{owner}/model",
                "sha": COMMIT,
                "siblings": siblings,
                "private": False,
                "tags": [],
            }
            return self._answer(200, json.dumps(answer).encode(), {"Content-Type": "application/json"})
        name = self.path.split(COMMIT + "/", 1)[1]
        self._answer(200, FILES[name], {"ETag": f'"{hashlib.sha1(FILES[name]).hexdigest()}"', "X-Repo-Commit": COMMIT})

    def _answer(self, status: int, body: bytes, headers: dict[str, str]) -> None:
        self.send_response(status)
        for name, value in headers.items():
            self.send_header(name, value)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        if self.command == "GET":
            self.wfile.write(body)

    def log_message(self, *_: object) -> None:
        pass


@pytest.fixture
def server() -> Iterator[http.server.ThreadingHTTPServer]:
    played = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Hub)
    played.asked = []  # type: ignore[attr-defined]
    threading.Thread(target=played.serve_forever, daemon=True).start()
    yield played
    played.shutdown()


def fetched(home: Path, model: str, endpoint: str, token: str | None = None, **environment: str) -> tuple[int, str]:
    """In a process of its own: the hub's client looks at the environment when it is loaded. Exit code, and the folder or the message."""
    program = (
        "import sys\nfrom dubbing import hub\nfrom dubbing.errors import CoursedubError\n"
        "try: print(hub.folder_of(sys.argv[1], sys.argv[2] or None))\n"
        "except CoursedubError as error: print(error); sys.exit(error.exit_code)"
    )
    kept = {name: value for name, value in os.environ.items() if not name.startswith("HF_")}
    variables = {"HF_HOME": str(home), "HF_ENDPOINT": endpoint, "HF_HUB_DISABLE_XET": "1", "HF_HUB_DISABLE_PROGRESS_BARS": "1"}
    done = subprocess.run(
        [sys.executable, "-c", program, model, token or ""],
        cwd=ROOT,
        env=kept | variables | environment,
        capture_output=True,
        text=True,
        check=False,
    )
    assert "Traceback" not in done.stderr, done.stderr
    return done.returncode, done.stdout.strip()


def address(server: http.server.ThreadingHTTPServer) -> str:
    return f"http://127.0.0.1:{server.server_port}"


def test_a_model_is_fetched_once_and_found_without_the_hub_after(server: http.server.ThreadingHTTPServer, tmp_path: Path) -> None:
    code, folder = fetched(tmp_path, f"open/model@{COMMIT}", address(server))
    assert code == 0
    assert (Path(folder) / "segmentation/pytorch_model.bin").read_bytes() == FILES["segmentation/pytorch_model.bin"]
    assert not (Path(folder) / "flax_model.msgpack").exists()
    asked = len(server.asked)  # type: ignore[attr-defined]
    assert fetched(tmp_path, f"open/model@{COMMIT}", address(server), HF_HUB_OFFLINE="1") == (0, folder)
    assert len(server.asked) == asked  # type: ignore[attr-defined]
    assert fetched(tmp_path, f"open/model@{COMMIT}", "http://127.0.0.1:9") == (0, folder)


def test_conditions_that_were_not_accepted_are_told(server: http.server.ThreadingHTTPServer, tmp_path: Path) -> None:
    code, said = fetched(tmp_path, f"gated/model@{COMMIT}", address(server))
    assert code == BadSetting.exit_code
    assert said.startswith("model gated/model: its conditions must be accepted at hf.co/gated/model, and a token")
    code, said = fetched(tmp_path, f"gated/model@{COMMIT}", address(server), token="hf_bad")
    assert code == BadSetting.exit_code and "hf_bad" not in said
    assert fetched(tmp_path, f"gated/model@{COMMIT}", address(server), token="hf_good")[0] == 0


def test_a_model_that_there_is_none_is_told(server: http.server.ThreadingHTTPServer, tmp_path: Path) -> None:
    code, said = fetched(tmp_path, f"missing/model@{COMMIT}", address(server))
    assert (code, said.partition(":")[0]) == (21, "model missing/model")


@pytest.mark.parametrize("endpoint", ["unreachable", "broken", "offline"])
def test_a_hub_that_cannot_be_reached_is_told_in_a_line(endpoint: str, server: http.server.ThreadingHTTPServer, tmp_path: Path) -> None:
    owner = "broken" if endpoint == "broken" else "open"
    offline = {"HF_HUB_OFFLINE": "1"} if endpoint == "offline" else {}
    where = "http://127.0.0.1:9" if endpoint == "unreachable" else address(server)
    code, said = fetched(tmp_path, f"{owner}/model@{COMMIT}", where, **offline)
    assert code == 32
    assert said.startswith(f"model {owner}/model: it isn't on this machine, and the hub can't be reached (")
    assert len(said.splitlines()) == 1


@pytest.mark.parametrize(
    "model", ["", "model", "owner/model", "owner/model@main", f"owner/model@{COMMIT[:7]}", f"a/b/c@{COMMIT}", "../x y@z"]
)
def test_a_name_that_says_not_which_is_refused(model: str) -> None:
    for ask in (hub.identity, hub.folder_of):
        with pytest.raises(BadSetting, match=r"^model .*: (neither|there is no such folder)"):
            ask(model)


def test_a_folder_counts_by_what_is_in_it(tmp_path: Path) -> None:
    one, same = tmp_path / "one", tmp_path / "same"
    for folder in (one, same):
        (folder / "deep").mkdir(parents=True)
        (folder / "config.json").write_text("{}")
        (folder / "deep" / "model.bin").write_bytes(b"abc")
    assert hub.identity(str(one)) == hub.identity(str(same))
    seen = {hub.identity(str(one))}
    (one / "config.json").write_text("[]")
    seen.add(hub.identity(str(one)))
    (one / "deep" / "model.bin").rename(one / "model.bin")
    seen.add(hub.identity(str(one)))
    (one / "more").write_text("")
    seen.add(hub.identity(str(one)))
    assert len(seen) == 4
    assert hub.folder_of(str(one)) == one


def test_the_catalogue_s_models_count_by_their_pins_and_the_hub_s_by_their_commit() -> None:
    assert hub.identity("whisper-base") == weights.find("whisper-base").digest()
    assert hub.identity(f"owner/model@{COMMIT}") == COMMIT
