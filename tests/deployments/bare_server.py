"""A bare server for install.sh: this machine's own files under a layer that takes every change, entered with chroot.

The script is the real one, and so are useradd, systemctl (which enables units without a running systemd), curl, tar and pip. Played are
what would come from far away: Debian's packages, the Python packages (small wheels made here), Ollama (a shell script in an archive that a
server on this machine serves), the model hub. The project that is installed is a small one of the same names.
"""

from __future__ import annotations

import base64
import hashlib
import io
import os
import shutil
import subprocess
import tarfile
import threading
import zipfile
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import NamedTuple

ROOT = Path(__file__).parents[2]
GPU_SERVER = ROOT / "deployments" / "gpu_server"
LIMIT = 1800.0  # seconds after which a run counts as stuck: making two environments takes ten, or minutes where machines are busy
PACKAGES = "ca-certificates curl ffmpeg procps python3 python3-venv zstd"

# What builds the small projects: a wheel of their folders, without anything that would have to be fetched.
BUILDER = """\
import pathlib, zipfile
NAME, PACKAGES, PROGRAM = {about!r}
def build_wheel(folder, settings=None, metadata=None):
    stem = NAME.replace("-", "_") + "-0.1.0"
    info = {{"METADATA": f"Metadata-Version: 2.1\\nName: {{NAME}}\\nVersion: 0.1.0\\n",
            "WHEEL": "Wheel-Version: 1.0\\nRoot-Is-Purelib: true\\nTag: py3-none-any\\n", "RECORD": "", "entry_points.txt": PROGRAM}}
    with zipfile.ZipFile(pathlib.Path(folder, stem + "-py3-none-any.whl"), "w") as wheel:
        for package in PACKAGES:
            for file in sorted(pathlib.Path(package).glob("*.py")):
                wheel.write(file)
        for name, text in info.items():
            wheel.writestr(f"{{stem}}.dist-info/{{name}}", text)
    pathlib.Path("build").mkdir()  # as setuptools leaves one
    return stem + "-py3-none-any.whl"
"""
PYPROJECT = """\
[build-system]
requires = []
build-backend = "builder"
backend-path = ["{folder}"]
[project]
name = "{name}"
version = "0.1.0"
"""
PROJECT = {
    "pyproject.toml": PYPROJECT.format(folder="dubbing", name="coursedub"),
    "dubbing/builder.py": BUILDER.format(
        about=("coursedub", ("dubbing", "blocks", "tasks", "flows"), "[console_scripts]\ncoursedub = flows.command_line:main\n")
    ),
    "LICENSE": "free\n",
    **{f"{package}/__init__.py": "" for package in ("dubbing", "blocks", "tasks", "flows")},
    "flows/command_line.py": """\
import os, pathlib, sys
def main():
    folder = pathlib.Path(os.environ["COURSEDUB_WEIGHTS"])
    built_in, of_gpu = ["qwen", "kokoro"], ["htdemucs", "whisper-large-v3", "kokoro"]
    if sys.argv[1:] == ["environment"]:
        print(os.getuid(), dict(os.environ))
        return
    match sys.argv[1:]:
        case ["weights", "fetch", *profile]:
            folder.mkdir(parents=True, exist_ok=True)
            for name in of_gpu if profile == ["--profile", "gpu"] else built_in:
                (folder / name).write_text("weights")
        case ["weights", *profile]:
            for name in of_gpu if profile == ["list", "--profile", "gpu"] else sorted({*built_in, *of_gpu}):
                print(name, "here" if (folder / name).exists() else "not fetched")
        case other:
            sys.exit(f"no such command: {other}")
""",
}
SERVICE = {
    "pyproject.toml": PYPROJECT.format(folder="chatterbox_service", name="chatterbox-service"),
    "chatterbox_service/builder.py": BUILDER.format(about=("chatterbox-service", ("chatterbox_service",), "")),
    "chatterbox_service/__init__.py": "",
    "chatterbox_service/model.py": 'REPOSITORY, WEIGHTS, EXTRAS = "a/b", ("one.pt", "two.pt"), ("three.pt",)\n',
}
HUB = """\
import pathlib
def snapshot_download(repository, *, revision, allow_patterns, local_dir):
    pathlib.Path(local_dir).mkdir(exist_ok=True)
    for name in allow_patterns:
        pathlib.Path(local_dir, name).write_text(f"{repository} {revision} {name}")
"""
OLLAMA = """\
#!/bin/sh
set -eu
case $1 in
serve) echo $$ >"$HOME/serving" && exec sleep 1000 ;;
list) kill -0 "$(cat "$HOME/serving")" ;;
pull)
    kill -0 "$(cat "$HOME/serving")"
    [ "$2" != nobody ] || { printf 'pulling manifest\\rError: file does not exist\\n' >&2 && exit 1; }
    folder=$OLLAMA_MODELS/manifests/registry.ollama.ai/library/${2%%:*}
    mkdir -p "$folder" && echo "$2" >"$folder/${2##*:}"
    ;;
esac
"""
APT_GET = """\
#!/bin/sh
echo "apt-get $*" >>/played/calls
[ ! -e /played/apt-fails ] || exit 100
[ "$1" != install ] || for package; do echo "$package" >>/played/packages; done
"""
DPKG_QUERY = """\
#!/bin/sh
for package; do :; done
grep -qx "$package" /played/packages && printf 'install ok installed'
"""
SYSTEMCTL = """\
#!/bin/sh
echo "systemctl $*" >>/played/calls
case "$*" in
--version) echo "systemd 255 (255.4)" ;;
is-active*) grep -qx "$2" /played/active && echo active || { echo inactive && exit 3; } ;;
*) /usr/bin/systemctl --root=/ "$@" >/dev/null 2>&1 || : ;;
esac
"""
UV = """\
import os, sys
def main():
    if sys.argv[1] == "--version":
        return
    assert sys.argv[1:3] == ["python", "install"], sys.argv
    folder = f"{os.environ['UV_PYTHON_INSTALL_DIR']}/cpython-{sys.argv[-1]}-linux-x86_64-gnu/bin"
    os.makedirs(folder)
    os.symlink("/usr/bin/python3", f"{folder}/python3.11")
"""


class Run(NamedTuple):
    code: int
    output: str
    errors: str

    @property
    def changes(self) -> list[str]:
        """What it says it does, a line each, but for the last."""
        return [
            line.removeprefix("install: ")
            for line in self.output.splitlines()
            if not line.startswith(("install: done", "install: there is no NVIDIA", "install: systemd is not running"))
        ]


@dataclass
class BareServer:
    """The server; paths are seen from outside."""

    root: Path
    changed: Path  # the layer that takes the changes
    archives: Archives
    below: str  # the layers that stay as they are

    def path(self, name: str) -> Path:
        return self.root / name.lstrip("/")

    @property
    def checkout(self) -> Path:
        return self.path("/played/checkout")

    def enter(self, *command: str, **environment: str) -> Run:
        clean = {"PATH": "/played/bin:/usr/sbin:/usr/bin:/sbin:/bin", "HOME": "/root", "LC_ALL": "C.UTF-8"}
        clean |= {"PIP_NO_INDEX": "1", "PIP_FIND_LINKS": "/played/wheels", "PIP_CONFIG_FILE": "/dev/null", **environment}
        done = subprocess.run(["chroot", self.root, *command], env=clean, capture_output=True, text=True, timeout=LIMIT, check=False)
        return Run(done.returncode, done.stdout, done.stderr)

    def install(self, *options: str, **environment: str) -> Run:
        return self.enter("/played/checkout/deployments/gpu_server/install.sh", *options, **environment)

    def calls(self) -> list[str]:
        """What was asked of played programs since this was last asked."""
        path = self.path("/played/calls")
        calls = path.read_text().splitlines() if path.exists() else []
        path.write_text("")
        return calls

    def touched(self) -> dict[str, os.stat_result]:
        """Every file, link and folder that was made, removed or opened for writing here, but for what the played programs note."""
        played = ("played", "tmp", "run", "proc", "dev")
        return {
            f"/{name}": path.lstat()
            for path in sorted(self.changed.rglob("*"))
            for name in [path.relative_to(self.changed)]
            if name.parts[0] not in played
        }


@contextmanager
def bare_server(folder: Path, origin: BareServer | None = None) -> Iterator[BareServer | None]:
    """A server of its own; one that begins as `origin` is, which then must not change any more. None where this machine can't give one: not
    root, or no layered file system."""
    layers, root = folder / "layers", folder / "root"
    layers.mkdir()
    root.mkdir()
    mounted: list[Path] = []

    def mount(*arguments: str | Path) -> bool:
        done = subprocess.run(["mount", *arguments], capture_output=True, check=False)
        if done.returncode == 0:
            mounted.append(Path(arguments[-1]))
        return done.returncode == 0

    def mount_all() -> bool:
        if os.geteuid() or not mount("-t", "tmpfs", "none", layers):
            return False
        changed.mkdir()
        work.mkdir()
        below = f"{origin.changed}:{origin.below}" if origin else "/"
        if not mount("-t", "overlay", "overlay", "-o", f"lowerdir={below},upperdir={changed},workdir={work}", root):
            return False
        return all(
            (
                *(mount("--bind", f"/{name}", root / name) for name in ("proc", "dev")),
                *(mount("-t", "tmpfs", "none", root / name) for name in ("tmp", "run")),
            )
        )

    changed, work = layers / "changed", layers / "work"
    archives = Archives()
    try:
        if not mount_all():
            yield None
            return
        server = BareServer(root, changed, archives, f"{origin.changed}:{origin.below}" if origin else "/")
        if origin:
            archives.content = origin.archives.content
            pin_ollama(server, "1.0")
        else:
            _play(server)
        yield server
    finally:
        archives.close()
        for path in reversed(mounted):
            subprocess.run(["umount", "-l", path], check=True)


def _play(server: BareServer) -> None:
    played = server.path("/played")
    (played / "bin").mkdir(parents=True)
    (played / "wheels").mkdir()
    (played / "packages").write_text("".join(f"{package}\n" for package in PACKAGES.split() if package not in ("ffmpeg", "zstd")))
    (played / "active").write_text("")
    for name, program in {"apt-get": APT_GET, "dpkg-query": DPKG_QUERY, "systemctl": SYSTEMCTL}.items():
        _write_program(played / "bin" / name, program)
    locks = {
        name: _wheel(played / "wheels", name, "1.0", files)
        for name, files in {
            "something": {"something.py": "VERSION = 1\n"},
            "huggingface-hub": {"huggingface_hub.py": HUB},
            "uv": {"uv.py": UV},
        }.items()
    }
    server.archives.content = ollama_archive(OLLAMA)
    host = server.checkout / "deployments" / "gpu_server"
    shutil.copytree(GPU_SERVER, host, ignore=shutil.ignore_patterns("chatterbox", ".*"))
    shutil.copy2(GPU_SERVER.parent / "installing.sh", host.parent)
    control = host.with_name("control_plane")
    shutil.copytree(GPU_SERVER.with_name("control_plane"), control, ignore=shutil.ignore_patterns(".env", "worker.env", "users", "backups"))
    (control / "requirements.lock").write_text(locks["something"])
    _write_tree(server.checkout, PROJECT)
    _write_tree(host / "chatterbox", SERVICE)
    (host / "pipeline.lock").write_text(locks["something"])
    (host / "chatterbox" / "requirements.lock").write_text(locks["huggingface-hub"])
    (host / "tools.lock").write_text(locks["uv"])
    pin_ollama(server, "1.0")
    # Not this machine's own, should there be one.
    for name in ("/etc/coursedub", "/opt/coursedub", "/var/lib/coursedub"):
        shutil.rmtree(server.path(name), ignore_errors=True)
    server.path("/opt").mkdir(exist_ok=True)


def pin_ollama(server: BareServer, version: str, sha256: str = "") -> None:
    (server.checkout / "deployments" / "gpu_server" / "versions.sh").write_text(
        f"DISK_GB=0\nOLLAMA_VERSION={version}\nOLLAMA_SHA256={sha256 or hashlib.sha256(server.archives.content).hexdigest()}\n"
        f"OLLAMA_ARCHIVE=http://127.0.0.1:{server.archives.port}/ollama.tar.zst\nPYTHON_VERSION=3.11.18\n"
    )


def ollama_archive(program: str) -> bytes:
    """Of the same layout as the real one. tar sees by itself how it is compressed."""
    data = io.BytesIO()
    with tarfile.open(fileobj=data, mode="w:gz") as archive:
        for name, content, mode in (("bin/ollama", program.encode(), 0o755), ("lib/ollama/weight", os.urandom(200_000), 0o644)):
            entry = tarfile.TarInfo(name)
            entry.size, entry.mode = len(content), mode
            archive.addfile(entry, io.BytesIO(content))
    return data.getvalue()


class Archives:
    """Serves one archive, and breaks off when it is told to."""

    def __init__(self) -> None:
        self.content = b""
        self.break_after: int | None = None  # bytes
        self.asked: list[str] = []  # the Range of each request
        outer = self

        class Handler(BaseHTTPRequestHandler):
            def do_GET(self) -> None:
                begin = int(self.headers.get("Range", "bytes=0-").removeprefix("bytes=").removesuffix("-"))
                outer.asked.append(self.headers.get("Range", ""))
                rest = outer.content[begin:]
                self.send_response(206 if begin else 200)
                if begin:
                    self.send_header("Content-Range", f"bytes {begin}-{len(outer.content) - 1}/{len(outer.content)}")
                self.send_header("Content-Length", str(len(rest)))
                self.end_headers()
                self.wfile.write(rest[: outer.break_after])

            def log_message(self, format: str, *arguments: object) -> None:
                pass

        self._server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self.port = self._server.server_address[1]
        threading.Thread(target=self._server.serve_forever, daemon=True).start()

    def close(self) -> None:
        self._server.shutdown()
        self._server.server_close()


def _write_program(path: Path, content: str) -> None:
    path.write_text(content)
    path.chmod(0o755)


def _write_tree(folder: Path, files: dict[str, str]) -> None:
    for name, content in files.items():
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_text(content)


def _wheel(folder: Path, name: str, version: str, files: dict[str, str]) -> str:
    """A wheel in the folder; returns the lines of a lock that pin it. One that has a `main` is a program too."""
    stem = f"{name.replace('-', '_')}-{version}"
    info = {
        "METADATA": f"Metadata-Version: 2.1\nName: {name}\nVersion: {version}\n",
        "WHEEL": "Wheel-Version: 1.0\nRoot-Is-Purelib: true\nTag: py3-none-any\n",
    }
    if any("def main" in content for content in files.values()):
        info["entry_points.txt"] = f"[console_scripts]\n{name} = {name}:main\n"
    content = files | {f"{stem}.dist-info/{file}": text for file, text in info.items()}
    record = "".join(f"{file},sha256={_record_digest(text)},{len(text.encode())}\n" for file, text in content.items())
    path = folder / f"{stem}-py3-none-any.whl"
    with zipfile.ZipFile(path, "w") as wheel:
        for file, text in content.items():
            wheel.writestr(file, text)
        wheel.writestr(f"{stem}.dist-info/RECORD", record + f"{stem}.dist-info/RECORD,,\n")
    return f"{name}=={version} \\\n    --hash=sha256:{hashlib.sha256(path.read_bytes()).hexdigest()}\n"


def _record_digest(text: str) -> str:
    return base64.urlsafe_b64encode(hashlib.sha256(text.encode()).digest()).rstrip(b"=").decode()
