"""A stage whose code changed must be looked at: does what comes out change? If so, raise its version; if not, accept the new digest.

To accept the code as it stands:  python -m tests.tasks.test_stage_versions  (after raising the versions that must be raised).

A stage's code is its own module and everything of ours that it can reach by imports, engines included, without comments and docstrings.
"""

from __future__ import annotations

import ast
import functools
import hashlib
import importlib
import json
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent.parent
ACCEPTED = Path(__file__).with_name("stage_versions.json")
STAGE_NAMES = (
    "ingest",
    "extract_audio",
    "separate",
    "transcribe",
    "terms",
    "translate",
    "speakers",
    "synthesize",
    "fit",
    "shorten",
    "retranslate",
    "mix",
    "subtitles",
    "render",
    "inspect",
)
# What shapes no result: where things are kept, how they are keyed, watched and fetched, what messages say.
NOT_CODE_OF_A_STAGE = {
    "blocks.engine",
    "blocks.residence",
    "blocks.store",
    "dubbing.devices",
    "dubbing.errors",
    "dubbing.keys",
    "dubbing.processors",
    "dubbing.russian",
    "dubbing.sources",
    "dubbing.weights",
    "dubbing.wording",
    "blocks.claims",
    "blocks.files",
    "tasks.history",
    "tasks.lines",
    "tasks.planning",
    "tasks.progress",
    "tasks.stage",
}
PACKAGES = ("dubbing", "blocks", "tasks")


def file_of(module: str) -> Path | None:
    path = ROOT / (module.replace(".", "/") + ".py")
    return path if path.exists() else None


def imports_of(module: str) -> set[str]:
    """Our own modules that a module names in its imports, wherever they stand."""
    path, found = file_of(module), set()
    assert path is not None
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.Import):
            found |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom) and node.module:
            found |= {node.module, *(f"{node.module}.{alias.name}" for alias in node.names)}
    return {name for name in found if name.partition(".")[0] in PACKAGES and file_of(name)} - NOT_CODE_OF_A_STAGE


def reach_of(module: str) -> list[str]:
    seen, waiting = {module}, [module]
    while waiting:
        for name in imports_of(waiting.pop()) - seen:
            seen.add(name)
            waiting.append(name)
    return sorted(seen)


@functools.cache
def code_of(module: str) -> str:
    """The module's meaning: its syntax tree without docstrings."""
    path = file_of(module)
    assert path is not None
    tree = ast.parse(path.read_text())
    for node in ast.walk(tree):
        if isinstance(node, ast.Module | ast.ClassDef | ast.FunctionDef) and ast.get_docstring(node, clean=False) is not None:
            node.body = node.body[1:] or [ast.Pass()]
    return ast.dump(tree)


def digest_of(stage: str) -> str:
    texts = [f"{module}\n{code_of(module)}" for module in reach_of(f"tasks.{stage}")]
    return hashlib.sha256("\0".join(texts).encode()).hexdigest()[:16]


def stages_now() -> dict[str, dict[str, object]]:
    now = {}
    for name in STAGE_NAMES:
        stage = getattr(importlib.import_module(f"tasks.{name}"), name)
        now[name] = {"version": stage.version, "code": digest_of(name)}
    return now


@pytest.mark.parametrize("name", STAGE_NAMES)
def test_a_stage_whose_code_changed_was_looked_at(name: str) -> None:
    accepted, now = json.loads(ACCEPTED.read_text())[name], stages_now()[name]
    assert now["version"] >= accepted["version"], f"the version of {name} went back"
    assert now == accepted, (
        f"the code behind stage {name} changed: raise its version if what comes out may change, "
        f"then accept it with `python -m tests.tasks.test_stage_versions`"
    )


def test_every_stage_of_the_flow_is_watched() -> None:
    import flows.dub_video  # noqa: F401  # defines all stages
    from tasks.stage import STAGES

    assert set(STAGE_NAMES) <= set(STAGES)
    assert {stage.function.__module__ for stage in STAGES.values() if stage.function.__module__.startswith("tasks.")} == {
        f"tasks.{name}" for name in STAGE_NAMES
    }


def test_the_code_of_a_stage_reaches_its_engines() -> None:
    assert {"blocks.speech", "dubbing.audio", "tasks.synthesize"} <= set(reach_of("tasks.synthesize"))
    assert "dubbing.spleeter" in reach_of("tasks.separate")
    assert "blocks.speech" not in reach_of("tasks.render")


if __name__ == "__main__":
    ACCEPTED.write_text(json.dumps(stages_now(), indent=2) + "\n")
    sys.exit(0)
