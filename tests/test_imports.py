"""What may import what, and what the default installation may not need."""

import re
from pathlib import Path

from importlinter.cli import EXIT_STATUS_SUCCESS, lint_imports

ROOT = Path(__file__).parents[1]


def test_imports_point_one_way(capsys):
    status = lint_imports(config_filename=str(ROOT / "pyproject.toml"), cache_dir=None, no_cache=True, no_logo=True)
    assert status == EXIT_STATUS_SUCCESS, capsys.readouterr().out


def test_the_default_installation_needs_neither_torch_nor_tensorflow():
    locked = set(re.findall(r"^([a-z0-9-]+)==", (ROOT / "requirements.lock").read_text(), re.MULTILINE))
    assert "prefect" in locked
    assert not [name for name in locked if re.match(r"(torch|tensorflow|keras|jax|nvidia)", name)]


def test_the_lock_names_no_index_and_no_file():
    assert not re.search(r"://|^-|@ ", (ROOT / "requirements.lock").read_text(), re.MULTILINE)
