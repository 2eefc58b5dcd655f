"""The GPU server as its cloud shows it, and what may be asked of it: OpenStack's Nova, through its own SDK.

A look is asked again after faults that may pass. A step is asked once: one whose answer was lost may have been heard, so what became of it
is for the next look to tell (`dubbing/power.py`).
"""

from __future__ import annotations

import math
import os
import time
from typing import Any
from uuid import UUID

import httpx
from prefect.blocks.core import Block
from pydantic import Field, PrivateAttr, SecretStr

from blocks.leases import Leases
from dubbing.errors import BadSetting, CloudDown, PassingFault
from dubbing.power import GRACE, Limits, Look, Outcome, Step

TIMEOUT = 20.0  # seconds; Nova answers within one, unless it is in trouble
LONGEST_DELAY = 10.0  # seconds between two looks
_VERSION = "2.51"  # of Nova's interface, July 2017: from there on a tenant sees the events of an action
_VERSION_OF_REASONS = "2.84"  # from there on the events have details; unless it is set otherwise, Nova shows them to administrators alone
_MEANING = {"schedule_instances": "no host has room for it", "compute_unshelve_instance": "its host could not start it"}
_POWER_STATES = {1: "running", 3: "paused", 4: "shutdown", 6: "crashed", 7: "suspended"}  # nova/compute/power_state.py
_ONCE = {"raise_exc": False, "connect_retries": 0, "status_code_retries": 0}
_ACTIONS: dict[Step, dict[str, Any]] = {
    "unshelve": {"unshelve": None},
    "shelve": {"shelve": None},
    "offload": {"shelveOffload": None},
    "start": {"os-start": None},
    "stop": {"os-stop": None},
    "unpause": {"unpause": None},
    "resume": {"resume": None},
    "unrescue": {"unrescue": None},
    "reboot": {"reboot": {"type": "HARD"}},
}


class GpuServer(Block):
    """A server with a GPU in an OpenStack cloud, woken when there is work and shelved when there is none.

    Credentials: a cloud of clouds.yaml and secure.yaml, or an application credential given here, or OS_* in the environment. It need only
    be allowed to look at this server and to act on it.
    """

    _block_type_name = "Coursedub GPU server"
    _block_type_slug = "coursedub-gpu-server"
    server_id: str = Field(description="The server's id in the cloud (a UUID). Leases and history go by it.")
    address: str = Field(default="", description="Name or address that the server is reached by, for persons.")
    cloud: str = Field(default="", description="Its cloud in clouds.yaml; OS_CLOUD, or OS_AUTH_URL and so on, when empty.")
    auth_url: str = Field(default="", description="Keystone's address (…/v3), with an application credential.")
    application_credential_id: str = Field(default="")
    application_credential_secret: SecretStr = Field(default=SecretStr(""))
    region: str = Field(default="", description="Needed where the cloud has several.")
    interface: str = Field(default="public", description="Which of the cloud's endpoints: public, internal or admin.")
    database: SecretStr = Field(
        default_factory=lambda: SecretStr(os.environ.get("COURSEDUB_LEASES", "")),
        description="PostgreSQL 14 or newer with the leases: postgresql://user:password@host/name; by default COURSEDUB_LEASES. Where that "
        "is set, it is that machine's own way to the same database, and counts instead.",
    )
    price_per_hour: float = Field(
        default_factory=lambda: price_per_hour() or 0.0,
        ge=0,
        allow_inf_nan=False,
        description="What the server costs while it isn't shelved; by default COURSEDUB_COST_PER_HOUR.",
    )
    grace_minutes: float = Field(
        default_factory=lambda: GRACE / 60 if (minutes := _set("COURSEDUB_GRACE_MINUTES")) is None else minutes,
        ge=0,
        le=24 * 60,
        description="Minutes without work until it is shelved; by default COURSEDUB_GRACE_MINUTES, else 15.",
    )
    hours_a_day: float | None = Field(
        default_factory=lambda: _set("COURSEDUB_HOURS_A_DAY"),
        gt=0,
        le=24,
        description="Most hours in any 24 that it may be up; by default COURSEDUB_HOURS_A_DAY, else no limit.",
    )
    cost_a_day: float | None = Field(
        default_factory=lambda: _set("COURSEDUB_COST_A_DAY"),
        gt=0,
        allow_inf_nan=False,
        description="Most that it may cost in any 24 hours; by default COURSEDUB_COST_A_DAY, else no limit.",
    )
    up_within_minutes: float = Field(default=20.0, ge=0, description="Minutes that it is waited for to come up.")
    serve_within_minutes: float = Field(
        default=20.0, ge=0, description="Minutes that it is waited for to begin to work once it is up: its models are loaded first."
    )
    down_within_minutes: float = Field(
        default=60.0, ge=0, description="Minutes that it is waited for to be shelved: a snapshot of a large disk takes longer than a start."
    )
    poll: float = Field(default=10.0, ge=0, description="Seconds between two looks while it is waited for.")
    timeout: float = Field(default=TIMEOUT, gt=0, description="Seconds without a sign of life before a request is given up.")
    retries: int = Field(default=3, ge=0, description="Further looks after a fault that may pass. What changes something is asked once.")
    retry_delay: float = Field(default=1.0, ge=0, description="Seconds before the first of them; twice as long before each that follows.")

    _client: Any = PrivateAttr(default=None)  # keystoneauth's adapter for Nova

    def block_initialization(self) -> None:
        if not _is_id(self.server_id):
            raise BadSetting(f"GPU server: server_id {self.server_id!r} is no UUID; `openstack server list` shows it")
        if bool(self.auth_url) != bool(self.application_credential_id and self.application_credential_secret.get_secret_value()):
            raise BadSetting("GPU server: auth_url, application_credential_id and application_credential_secret go together")
        if self.cost_a_day and not self.price_per_hour:
            raise BadSetting("GPU server: cost_a_day is no limit without a price: set price_per_hour (COURSEDUB_COST_PER_HOUR)")

    @property
    def reference(self) -> str:
        """What `open_gpu_server` takes to give this server on another machine: the saved block's name, else the id."""
        return self._block_document_name or self.server_id

    @property
    def limits(self) -> Limits:
        return Limits(self.hours_a_day, self.cost_a_day, self.grace_minutes * 60)

    def leases(self) -> Leases:
        """
        Raises:
            BadSetting: no database is set.
        """
        if not self.database.get_secret_value():
            raise BadSetting("GPU server: no database for leases is set (COURSEDUB_LEASES=postgresql://…)")
        return Leases(self.database.get_secret_value(), self.server_id, self.limits)

    def look(self) -> Look:
        """What Nova says of it now.

        Raises:
            CloudDown: nobody answers, or not as Nova does.
            BadSetting: the cloud doesn't let us in.
        """
        response = self._get(f"/servers/{self.server_id}", _VERSION)
        if response.status_code == 404:
            return Look("DELETED")
        try:
            server = response.json()["server"]
            return Look(
                status=server["status"],
                vm_state=server.get("OS-EXT-STS:vm_state") or "",
                task_state=server.get("OS-EXT-STS:task_state") or "",
                power_state=_POWER_STATES.get(server.get("OS-EXT-STS:power_state"), ""),
                has_host=bool(server.get("hostId")),
                locked=bool(server.get("locked")),
                fault=_one_line((server.get("fault") or {}).get("message")),
            )
        except (ValueError, KeyError, TypeError, AttributeError) as error:
            raise CloudDown(f"GPU server {self.server_id}: what answers isn't Nova") from error

    def ask(self, step: Step) -> tuple[Outcome, str]:
        """Ask for a step. Returns what became of the request, and what was said."""
        nova = self._nova()
        from keystoneauth1.exceptions import ClientException
        from requests.exceptions import RequestException

        try:
            response = nova.post(
                f"/servers/{self.server_id}/action", json=_ACTIONS[step], microversion=_VERSION, **_ONCE, timeout=self.timeout
            )
        except (ClientException, RequestException) as error:
            return "unknown", _one_line(error)
        status = response.status_code
        said = f"{status}: {_message(response)}"
        if status < 300:
            return "accepted", str(status)
        if status == 403:
            return "forbidden", said
        return ("refused" if 400 <= status < 500 and status != 408 else "unknown"), said

    def reason_of_failure(self, step: Step) -> str:
        """What Nova notes of the newest such action, where it failed: a server that didn't come up shows no fault itself.

        Raises:
            CloudDown, BadSetting
        """
        actions = f"/servers/{self.server_id}/os-instance-actions"
        try:
            listed = [action for action in self._get(actions, _VERSION).json()["instanceActions"] if action["action"] == step]
            if not listed:
                return ""
            newest = max(listed, key=lambda action: str(action["start_time"]))
            response = self._get(f"{actions}/{newest['request_id']}", _VERSION_OF_REASONS)
            if response.status_code == 406:
                response = self._get(f"{actions}/{newest['request_id']}", _VERSION)
            events = response.json()["instanceAction"].get("events") or ()
            failed = [event for event in events if str(event.get("result", "")).lower() == "error"]
            reasons = [(event["event"], event.get("details") or _MEANING.get(event["event"], "failed")) for event in failed]
            return "; ".join(_one_line(f"{event}: {reason}") for event, reason in reasons)
        except (ValueError, KeyError, TypeError, AttributeError):
            return ""

    def close(self) -> None:
        client, self._client = self._client, None
        if client is not None:
            client.session.session.close()

    def _get(self, path: str, version: str) -> Any:
        """An answer that isn't a passing fault."""
        nova = self._nova()
        from keystoneauth1.exceptions import ClientException, NotFound, Unauthorized
        from requests.exceptions import RequestException

        fault = ""
        for attempt in range(self.retries + 1):
            if attempt:
                time.sleep(min(LONGEST_DELAY, self.retry_delay * 2 ** (attempt - 1)))
            try:
                response = nova.get(path, microversion=version, **_ONCE, timeout=self.timeout)
            except (Unauthorized, NotFound) as error:  # by Keystone; what Nova says comes as an answer
                raise BadSetting(f"GPU server: the cloud doesn't let us in: {_one_line(error)}") from error
            except (ClientException, RequestException) as error:
                fault = _one_line(error)
                continue
            if response.status_code == 403:
                raise BadSetting(f"GPU server: the cloud doesn't let us look at {self.server_id}: {_message(response)}")
            # 401 is of a token that Keystone just gave: the two disagree, which may pass.
            if response.status_code < 500 and response.status_code not in (401, 408, 429):
                return response
            fault = f"{response.status_code}: {_message(response)}"
        raise CloudDown(f"GPU server {self.server_id}: the cloud can't be asked: {fault}")

    def _nova(self) -> Any:
        """No request is made before the first look.

        Raises:
            BadSetting
        """
        if self._client is None:
            try:
                from keystoneauth1.adapter import Adapter
                from keystoneauth1.exceptions import ClientException
                from openstack.config import OpenStackConfig
                from openstack.exceptions import SDKException
            except ImportError:
                raise BadSetting("GPU server: not installed here: openstacksdk; pip install 'coursedub[gpu-server]' does it") from None
            settings: dict[str, Any] = {"interface": self.interface, "api_timeout": self.timeout}  # of requests to Keystone too
            if self.region:
                settings["region_name"] = self.region
            if self.auth_url:
                settings |= {
                    "auth_type": "v3applicationcredential",
                    "auth": {
                        "auth_url": self.auth_url,
                        "application_credential_id": self.application_credential_id,
                        "application_credential_secret": self.application_credential_secret.get_secret_value(),
                    },
                }
            elif self.cloud:
                settings["cloud"] = self.cloud
            given = bool(self.auth_url)
            try:
                config = OpenStackConfig(load_yaml_config=not given, load_envvars=not given, app_name="coursedub")
                cloud = config.get_one(**settings)
                # The SDK's own proxy makes requests before it is asked anything, and may hold answers back from us.
                where: dict[str, Any] = {"service_type": "compute", "interface": cloud.get_interface("compute")}
                self._client = Adapter(cloud.get_session(), region_name=cloud.get_region_name("compute"), **where)
            except (SDKException, ClientException, ValueError) as error:
                raise BadSetting(f"GPU server: {_one_line(error)}") from error
        return self._client


def open_gpu_server(name: str | None) -> GpuServer:
    """The GPU server that is saved as a block in Prefect, or whose id in the cloud this is, with what the environment says.

    None is COURSEDUB_GPU_SERVER.

    Raises:
        BadSetting
        PassingFault: Prefect can't be asked for the block.
    """
    name = _named(name)
    if _is_id(name):
        return GpuServer(server_id=name)
    try:
        loaded: Any = GpuServer.load(name.removeprefix(f"{GpuServer.get_block_type_slug()}/"))
    except ValueError as error:
        raise BadSetting(f"GPU server {name}: it is no id of a server, and Prefect has no such block") from error
    except (httpx.HTTPError, RuntimeError) as error:
        why = f"can't be asked for that block: {_one_line(error)}; a server's id in the cloud needs no Prefect"
        raise PassingFault(f"GPU server {name}: Prefect {why}") from error
    assert isinstance(loaded, GpuServer)
    if way := os.environ.get("COURSEDUB_LEASES"):
        loaded.database = SecretStr(way)
    return loaded


def server_with_id(name: str | None) -> GpuServer:
    """The GPU server with this id, with what the environment says: Prefect isn't asked.

    None is COURSEDUB_GPU_SERVER.

    Raises:
        BadSetting
    """
    name = _named(name)
    if not _is_id(name):
        raise BadSetting(f"GPU server {name}: the watchdog needs its id in the cloud, since a block is Prefect's, which may be down")
    return GpuServer(server_id=name)


def _named(name: str | None) -> str:
    name = name or os.environ.get("COURSEDUB_GPU_SERVER") or ""
    if not name:
        raise BadSetting("GPU server: none is set (COURSEDUB_GPU_SERVER: its id in the cloud, or a block saved in Prefect)")
    return name


def _is_id(name: str) -> bool:
    try:
        UUID(name)
    except ValueError:
        return False
    return True


def price_per_hour() -> float | None:
    """What the environment says that a machine costs: COURSEDUB_COST_PER_HOUR.

    Raises:
        BadSetting
    """
    return _set("COURSEDUB_COST_PER_HOUR")


_SET = {  # from, to: what may be set in the environment
    "COURSEDUB_COST_PER_HOUR": (0.0, math.inf),
    "COURSEDUB_GRACE_MINUTES": (0.0, 24 * 60.0),
    "COURSEDUB_HOURS_A_DAY": (0.01, 24.0),
    "COURSEDUB_COST_A_DAY": (0.01, math.inf),
}


def _set(name: str) -> float | None:
    """A number in the environment; None: there is none."""
    text = os.environ.get(name)
    if not text:
        return None
    least, most = _SET[name]
    try:
        number = float(text)
    except ValueError:
        number = math.nan
    if not least <= number <= most or math.isinf(number):
        raise BadSetting(f"{name}={text}: a number from {least:g} up" + ("" if math.isinf(most) else f", {most:g} at most"))
    return number


def _message(response: Any) -> str:
    """What Nova or Keystone says in an answer that is no success: {"conflictingRequest": {"message": …}}."""
    try:
        return _one_line(next(iter(response.json().values()))["message"])
    except (ValueError, KeyError, TypeError, AttributeError, StopIteration):
        return _one_line(response.reason)


def _one_line(said: object) -> str:
    return " ".join(str(said or "").split())[:300]
