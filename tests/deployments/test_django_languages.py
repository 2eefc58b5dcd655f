"""The app in English and Russian: nothing is left untranslated, and what is compiled is what is written."""

from __future__ import annotations

import ast
import gettext
import re
from pathlib import Path

from tests.deployments.django_site import APP

PACKAGE = APP / "coursedub_django"
CATALOGUE = PACKAGE / "locale" / "ru" / "LC_MESSAGES" / "django.po"
SAID_BY = {"_", "gettext", "gettext_lazy", "ngettext"}


def said_in_python(file: Path) -> set[str]:
    calls = (node for node in ast.walk(ast.parse(file.read_text())) if isinstance(node, ast.Call))
    named = (node for node in calls if isinstance(node.func, ast.Name) and node.func.id in SAID_BY and node.args)
    return {node.args[0].value for node in named if isinstance(node.args[0], ast.Constant)}  # type: ignore[misc]


def said_in_page(file: Path) -> set[str]:
    text = file.read_text()
    words = {found[2] for found in re.finditer(r"""\{% translate (["'])(.+?)\1""", text)}
    blocks = re.findall(r"\{% blocktranslate[^%]*%\}(.*?)\{% (?:plural|endblocktranslate) %\}", text, re.DOTALL)
    return words | {re.sub(r"\{\{ (\w+) \}\}", r"%(\1)s", block) for block in blocks}


def written() -> dict[str, str]:
    """What the catalogue says, with the first plural form."""
    entries = re.findall(r'^msgid "(.+)"\n(?:msgid_plural ".*"\n)?msgstr(?:\[0\])? "(.*)"$', CATALOGUE.read_text(), re.MULTILINE)
    return {said.replace('\\"', '"'): translation.replace('\\"', '"') for said, translation in entries}


def test_everything_that_is_said_is_translated() -> None:
    said = set().union(*(said_in_python(file) for file in PACKAGE.rglob("*.py") if "migrations" not in file.parts))
    said |= set().union(*(said_in_page(file) for file in PACKAGE.rglob("*.html")))
    assert len(said) > 150
    assert said == set(written()) and all(written().values())


def test_translations_have_the_same_places_for_values() -> None:
    for said, translation in written().items():
        assert sorted(re.findall(r"%\(?\w*\)?[.\d]*[sdgf]", said)) == sorted(re.findall(r"%\(?\w*\)?[.\d]*[sdgf]", translation)), said


def test_the_compiled_catalogue_is_the_written_one() -> None:
    """`msgfmt -o django.mo django.po`, or `django-admin compilemessages`, makes it."""
    with CATALOGUE.with_suffix(".mo").open("rb") as file:
        compiled = gettext.GNUTranslations(file)
    for said, translation in written().items():
        assert translation in (compiled.gettext(said), compiled.ngettext(said, "", 1)), said
    assert [compiled.ngettext("%(counter)s line", "%(counter)s lines", n) % {"counter": n} for n in (1, 3, 5, 11, 21)] == [
        *("1 реплика", "3 реплики", "5 реплик", "11 реплик", "21 реплика")
    ]
