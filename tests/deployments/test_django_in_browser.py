"""The platform as people use it, in headless Chromium, against a real Prefect with a real worker, on PostgreSQL: a partner uploads, an
administrator starts, a reviewer changes a line and approves, the administrator publishes.

Each page is kept as a picture in the folder that SCREENSHOTS names.
"""

from __future__ import annotations

import os
import shutil
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Any, NamedTuple
from urllib.parse import urlsplit
from uuid import UUID

import pytest
from coursedub_django.models import Answer, Course, Delivery, Job
from django.contrib.staticfiles.handlers import StaticFilesHandler
from django.test.testcases import LiveServerThread
from prefect.client.orchestration import get_client
from prefect.client.schemas.actions import WorkPoolCreate
from prefect.settings import PREFECT_API_URL
from pydantic import SecretStr
from selenium import webdriver
from selenium.common.exceptions import StaleElementReferenceException, TimeoutException
from selenium.webdriver.chrome.service import Service
from selenium.webdriver.common.by import By
from selenium.webdriver.common.keys import Keys
from selenium.webdriver.support.ui import Select, WebDriverWait

from blocks.kinescope import Kinescope
from flows.deploy import deploy
from tests.deployments.django_site import PASSWORD, SECRET, clear, coursedub, person, site
from tests.kinescope import PROJECT, TOKEN, PlayedKinescope
from tests.postgres import Postgres, programs
from tests.prefect_stack import LIMIT, ROOT, Worker, prefect_server

BETTER = "Sunlight looks white, and yet it holds many colours."
PATIENCE = 3 * LIMIT  # seconds: a lesson is dubbed meanwhile, on machines that are busy
CHROMIUM, DRIVER = shutil.which("chromium"), shutil.which("chromedriver")


class Platform(NamedTuple):
    address: str
    published: Callable[[], list[str]]  # ids of what is at Kinescope
    cost: str  # of a lesson
    really: bool  # dubbed


@pytest.fixture(scope="module", params=["stand-in", "embedded engines"])
def platform(request: pytest.FixtureRequest, postgres: Postgres, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Platform]:
    """Prefect with a worker, and Django, each with a database of its own; a flow that only acts as if, or lessons that are really dubbed
    and uploaded to a played Kinescope."""
    if not (CHROMIUM and DRIVER):
        pytest.skip("chromium and chromium-driver are not installed: `apt-get install chromium chromium-driver` does it")
    found = programs()
    if found is None or not list(found.parent.rglob("pg_trgm.control")):
        pytest.skip("this PostgreSQL has no pg_trgm, which Prefect's server needs")
    import psycopg

    really = request.param != "stand-in"
    databases = [f"{name}_{len(request.param)}" for name in ("prefect", "platform")]
    with psycopg.connect(postgres.address, autocommit=True) as connection:
        for database in databases:
            connection.execute(f"CREATE DATABASE {database}")  # type: ignore[arg-type]
    at_prefect, at_django = (postgres.address.replace("/postgres?", f"/{database}?") for database in databases)
    folder = tmp_path_factory.mktemp("platform")
    with ExitStack() as started:
        prefect = started.enter_context(prefect_server(at_prefect.replace("postgresql:", "postgresql+asyncpg:")))
        started.enter_context(site(at_django))
        server = LiveServerThread("127.0.0.1", StaticFilesHandler, port=0)
        server.daemon = True
        server.start()
        server.is_ready.wait()
        assert server.error is None
        started.callback(server.terminate)
        address = f"http://127.0.0.1:{server.port}"
        common = {"API_URL": prefect.api, "PUBLIC_URL": address, "FILES_ROOT": str(folder)}
        if really:
            kinescope = started.enter_context(embedded(folder))
            uses = {"PARAMETERS": {"profile": "cpu", "store": str(folder / "store")}, "PUBLISH_TO": str(folder / "published")}
            started.enter_context(coursedub(**common, **uses, KINESCOPE="played", WEBHOOK=f"{address}/dubbing/webhook/"))
            yield Platform(address, lambda: list(kinescope.videos), "", really=True)
        else:
            started.enter_context(stand_in(folder))
            started.enter_context(coursedub(**common, KINESCOPE="stand-in"))
            yield Platform(address, lambda: [job.kinescope_id for job in Job.objects.all()], "0.42", really=False)


@contextmanager
def stand_in(folder: Path) -> Iterator[None]:
    """A deployment of the flow that only acts as if, and its worker."""
    from tests.deployments.reviewed_flows import dub_video

    with get_client(sync_client=True) as client:
        client.create_work_pool(WorkPoolCreate(name="stand-in", type="process"))
        client.create_deployment(
            client.create_flow(dub_video),
            name="dub-video",
            work_pool_name="stand-in",
            entrypoint="tests.deployments.reviewed_flows.dub_video",
            parameter_openapi_schema=schema_of(dub_video),
            enforce_parameter_schema=True,
            pull_steps=[],
        )
    with worker("stand-in", folder, STAND_IN_FILES=str(folder), STAND_IN_SECONDS=os.environ.get("STAND_IN_SECONDS", "0.4")):
        yield


@contextmanager
def embedded(folder: Path) -> Iterator[PlayedKinescope]:
    """What `coursedub deploy` makes, its worker, and a Kinescope that is saved as a block."""
    with PlayedKinescope(folder / "kinescope") as played:
        for _ in deploy():
            pass
        there = Kinescope(project=PROJECT, token=SecretStr(TOKEN), api=played.address, uploader=played.address, poll=0.5, patience=30.0)
        there.save("played")
        with worker("control", folder, COURSEDUB_WEBHOOK_SECRET=SECRET):
            yield played


@contextmanager
def worker(pool: str, folder: Path, **environment: str) -> Iterator[None]:
    started = Worker(str(PREFECT_API_URL.value()), pool, folder / "worker", {"PYTHONPATH": str(ROOT), **environment})
    try:
        yield
    finally:
        started.kill_group()


def schema_of(flow: Any) -> dict[str, Any]:
    from prefect.utilities.callables import parameter_schema

    return parameter_schema(flow).model_dump_for_openapi()


class Browser:
    """One person at a screen."""

    def __init__(self, platform: Platform, language: str = "en") -> None:
        options = webdriver.ChromeOptions()
        options.binary_location = str(CHROMIUM)
        for argument in (
            "--headless=new",
            "--no-sandbox",
            "--disable-dev-shm-usage",
            "--window-size=1360,900",
            "--mute-audio",
            "--disable-gpu",
        ):
            options.add_argument(argument)
        options.add_argument("--autoplay-policy=no-user-gesture-required")
        options.add_argument(f"--lang={language}")
        options.add_experimental_option("prefs", {"intl.accept_languages": language})
        options.set_capability("goog:loggingPrefs", {"browser": "ALL"})
        self.driver = webdriver.Chrome(options=options, service=Service(str(DRIVER)))
        self.driver.set_page_load_timeout(LIMIT)
        self._platform = platform

    def complaints(self) -> list[str]:
        """Errors of the pages' scripts and of what they load."""
        return [
            line["message"] for line in self.driver.get_log("browser") if line["level"] == "SEVERE" and "favicon" not in line["message"]
        ]

    def goes(self, path: str) -> None:
        self.driver.get(self._platform.address + path)

    def enters(self, name: str) -> None:
        self.driver.delete_all_cookies()
        self.goes("/admin/login/?next=/admin/")
        self.writes("username", name)
        self.writes("password", PASSWORD)
        self.presses("input[type=submit]")
        self.sees("#user-tools")

    def one(self, css: str) -> Any:
        return self.driver.find_element(By.CSS_SELECTOR, css)

    def all(self, css: str) -> Any:
        return self.driver.find_elements(By.CSS_SELECTOR, css)

    def writes(self, name: str, text: str) -> None:
        field = self.driver.find_element(By.NAME, name)
        if field.get_attribute("type") != "file":
            field.clear()
        field.send_keys(text)

    def presses(self, css: str) -> None:
        self.one(css).click()

    def sees(self, css: str, text: str = "") -> Any:
        """Waits for it."""
        found: list[Any] = []

        def there() -> bool:
            found[:] = [one for one in self.all(css) if text in one.text]
            return bool(found)

        self.until(there, f"{css} {text}")
        return found[0]

    def reads(self, css: str) -> str:
        """Waits for a text there, on pages that load themselves anew."""
        found = ""

        def there() -> bool:
            nonlocal found
            found = next((one.text for one in self.all(css)), "")
            return bool(found)

        self.until(there, css)
        return found

    def until(self, what: Any, why: str = "") -> None:
        waiting = WebDriverWait(self.driver, PATIENCE, poll_frequency=0.2, ignored_exceptions=[StaleElementReferenceException])
        try:
            waiting.until(lambda _: what())
        except TimeoutException:
            pytest.fail(f"{why}: {self.driver.current_url}\n{self.runs('return document.body.innerText')[:2000]}")

    def runs(self, script: str) -> Any:
        return self.driver.execute_script(script)

    def picture(self, name: str) -> None:
        if folder := os.environ.get("SCREENSHOTS"):
            Path(folder).mkdir(parents=True, exist_ok=True)
            self.driver.save_screenshot(str(Path(folder) / f"{name}.png"))


@pytest.fixture
def browser(platform: Platform) -> Iterator[Browser]:
    clear()
    for name, group in (("paula", "partner"), ("petra", "partner"), ("rita", "reviewer"), ("anna", "administrator")):
        person(name, group)
    opened = Browser(platform)
    yield opened
    opened.driver.quit()


def upload(browser: Browser, lesson: Path, title: str = "Light and colour") -> None:
    browser.enters("paula")
    browser.goes("/admin/coursedub/course/add/")
    assert not browser.all("[name=owner]")
    browser.writes("title", "Physics for everybody")
    browser.writes("target_languages", "en, es")
    browser.presses("#lessons-group .add-row a, #lessons-group tr.add-row a")
    browser.writes("lessons-0-title", title)
    browser.writes("lessons-0-file", str(lesson))
    browser.picture("1-upload")
    browser.presses("[name=_save]")
    browser.sees(".messagelist .success")


def start(browser: Browser, language: str = "en", review: str = "voiceover") -> Job:
    browser.enters("anna")
    browser.goes("/admin/coursedub/lesson/")
    browser.presses("#result_list input.action-select")
    Select(browser.one("select[name=action]")).select_by_value("start_dubbing")
    browser.presses("button[name=index]")
    browser.sees(".cd-lessons li", "Light and colour")
    for box in browser.all("input[name=languages]"):
        if box.is_selected() != (box.get_attribute("value") == language):
            box.click()
    browser.presses(f"input[name=review][value={review}]")
    browser.picture("2-start")
    browser.presses("input[type=submit].default")
    browser.sees(".messagelist .success", "1 dubbing was started.")
    return Job.objects.get(pk=UUID(urlsplit(browser.driver.current_url).path.rstrip("/").split("/")[-2]))


@pytest.mark.timeout(2 * PATIENCE)
def test_from_upload_to_publication(browser: Browser, sample: Path, platform: Platform) -> None:
    upload(browser, sample)
    assert Course.objects.get().owner.username == "paula"
    job = start(browser)
    browser.until(lambda: browser.all(".cd-stage-running"), "progress is shown as it is made")
    browser.picture("3-progress")
    browser.goes("/admin/coursedub/job/")
    browser.picture("4-jobs")
    browser.sees("#result_list .cd-badge.cd-review")  # the list follows the run
    browser.goes(f"/admin/coursedub/job/{job.pk}/change/")
    browser.sees(".cd-badge", "waits for a review")
    browser.picture("5-wants-review")

    reviews(browser, job)
    answer = Answer.objects.get()
    (edit,) = answer.edits
    assert edit["text"] == BETTER and set(edit) == {"line", "text"}
    assert (answer.decision, answer.reviewer.username) == ("approve", "rita")

    browser.enters("anna")
    browser.goes(f"/admin/coursedub/job/{job.pk}/change/")
    browser.sees(".cd-badge", "done")
    assert not platform.cost or platform.cost in browser.reads(".cd-facts [data-cd-cost]")
    browser.until(lambda: browser.runs("return document.querySelector('video').readyState") >= 1, "the dubbed video plays")
    browser.picture("8-done")
    if platform.really:
        browser.until(lambda: Job.objects.get(pk=job.pk).result, "the page asks for the result of a run that is done")
        job.refresh_from_db()
        assert [edit["became"] for edit in job.result["edits"]] == ["applied"]
        told = {delivery.event for delivery in Delivery.objects.filter(job=job)}
        assert told >= {"voiceover_uploaded", "video_completed"}, "the webhooks came"
    browser.presses("form[action$='/do/publish/'] button")
    browser.sees(".cd-badge.cd-published")
    shown = browser.reads(".cd-good code")
    job.refresh_from_db()
    assert [shown] == [job.kinescope_id] == platform.published() and job.published_by is not None and job.published_by.username == "anna"
    browser.picture("9-published")

    browser.enters("paula")
    browser.goes(f"/admin/coursedub/job/{job.pk}/change/")
    assert "published" in browser.sees(".cd-badge").text and not browser.all(".cd-buttons form")
    browser.enters("petra")
    browser.goes(f"/admin/coursedub/job/{job.pk}/change/")
    assert "Not Found" in browser.one("body").text and "Light" not in browser.driver.page_source


def reviews(browser: Browser, job: Job) -> None:
    """A reviewer hears a line, changes one, is warned before the change is lost, and approves."""
    browser.enters("rita")
    browser.goes(f"/admin/coursedub/job/{job.pk}/change/")
    browser.presses("a.cd-main[href$='/review/']")
    browser.sees("#cd-lines .cd-line")
    assert browser.sees("#cd-approve").text == "Approve"
    browser.until(lambda: browser.runs("return document.getElementById('cd-original').readyState") >= 1)
    body = browser.one("body")
    body.send_keys(Keys.ARROW_DOWN)
    second = browser.runs("return JSON.parse(document.getElementById('cd-data').textContent).lines[1]")
    body.send_keys("o")
    where = "return document.getElementById('cd-original').currentTime"
    browser.until(lambda: second["start"] <= browser.runs(where), "it plays from the line's start")
    browser.until(lambda: browser.runs("return document.getElementById('cd-original').paused"), "and stops at its end")
    assert browser.runs(where) < second["end"] + 2
    if browser.all("#cd-dubbed"):
        body.send_keys("d")
        browser.until(lambda: browser.runs("return document.getElementById('cd-dubbed').currentTime") >= second["start"])
    if browser.all(".cd-line.cd-flagged"):
        body.send_keys("n")
        browser.sees(".cd-line.cd-current.cd-flagged")
    assert not warns_of_leaving(browser)
    body.send_keys("e")
    typing = browser.driver.switch_to.active_element
    typing.send_keys(Keys.CONTROL, "a")
    typing.send_keys(BETTER, Keys.ENTER)
    assert browser.sees("#cd-approve").text == "Approve with changes (1)"
    browser.picture("6-review")
    assert warns_of_leaving(browser)
    assert browser.sees("#cd-count").text == "changed lines: 1"
    browser.presses("#cd-reject")
    browser.presses("#cd-reason button")
    browser.sees("#cd-trouble", "Say why")
    browser.picture("7-reject")
    browser.presses("#cd-approve")
    browser.sees(".messagelist .success", "Approved")
    assert not browser.complaints()


def warns_of_leaving(browser: Browser) -> bool:
    """A driver answers the browser's own question before anybody sees it."""
    ask = "const leaving = new Event('beforeunload', {cancelable: true}); window.dispatchEvent(leaving); return leaving.defaultPrevented"
    return bool(browser.runs(ask))
