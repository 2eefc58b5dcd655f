"""The app as others install it: a package of its own, which needs Django and httpx and nothing of coursedub."""

from __future__ import annotations

import os
import subprocess
import sys
import zipfile
from pathlib import Path

from tests.deployments.django_site import APP

OURS = ("dubbing", "blocks", "tasks", "flows", "prefect", "boto3", "psycopg")


def python(*arguments: str, **environment: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run([sys.executable, *arguments], capture_output=True, text=True, check=False, env={**os.environ, **environment})


def test_it_works_where_coursedub_is_not_installed(tmp_path: Path) -> None:
    script = (
        f"import sys; sys.modules.update(dict.fromkeys({OURS!r})); sys.path[:0] = [{str(APP)!r}, {str(APP / 'example')!r}]\n"
        "import django; django.setup()\n"
        "from django.core.management import call_command\n"
        "call_command('migrate', verbosity=0); call_command('check', fail_level='WARNING')\n"
        "import coursedub_django.admin, coursedub_django.urls, coursedub_django.jobs\n"
    )
    done = python("-c", script, DJANGO_SETTINGS_MODULE="platform_site.settings", DJANGO_DATA=str(tmp_path))
    assert done.returncode == 0, done.stderr


def test_its_wheel_has_all_that_it_needs(tmp_path: Path) -> None:
    source = tmp_path / "source"
    subprocess.run(["cp", "-r", APP, source], check=True)
    wanted = ["pip", "wheel", "--quiet", "--disable-pip-version-check", "--no-deps", "--no-build-isolation"]
    done = python("-m", *wanted, "--wheel-dir", str(tmp_path), str(source))
    assert done.returncode == 0, done.stderr
    (wheel,) = tmp_path.glob("*.whl")
    found = set(zipfile.ZipFile(wheel).namelist())
    kinds = {".py", ".html", ".js", ".css", ".mo"}
    there = {str(path.relative_to(APP)) for path in (APP / "coursedub_django").rglob("*") if path.suffix in kinds}
    assert len(there) > 25 and there <= found
    assert not [name for name in found if name.startswith(("example", "platform_site"))]


def test_a_site_that_is_served_wants_a_key_of_its_own(tmp_path: Path) -> None:
    manage = str(APP / "example" / "manage.py")
    done = python(manage, "check", DJANGO_DEBUG="0", DJANGO_DATA=str(tmp_path))
    assert done.returncode and "DJANGO_SECRET_KEY" in done.stderr
    done = python(manage, "try_out", DJANGO_DEBUG="0", DJANGO_SECRET_KEY="x" * 50, DJANGO_DATA=str(tmp_path))
    assert done.returncode and "everybody knows the password" in done.stderr
