"""When the GPU server is to be up, and the step towards it from every state of the table."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta

import pytest
from hypothesis import given
from hypothesis import strategies as st

from dubbing.power import (
    LONGEST_DELAY,
    MANY_TRIES,
    MAY_STILL_COME,
    STUCK_AFTER,
    Facts,
    Lease,
    Limits,
    Look,
    Need,
    Order,
    Tried,
    corrected,
    decide,
    delay,
    serves,
    shares,
    wanted,
)

NOW = datetime(2026, 3, 1, 12, 0, tzinfo=UTC)


def ago(seconds: float) -> datetime:
    return NOW - timedelta(seconds=seconds)


def lease(owner: str = "lesson 1", until: datetime = NOW + timedelta(minutes=4)) -> Lease:
    return Lease("1", owner, "dub", ago(60), until)


WORKED = Facts(NOW, leases=(lease(),), up_since=ago(600))
IDLE = Facts(NOW, needed_until=ago(60), up_since=ago(600))
LONG_IDLE = Facts(NOW, needed_until=ago(16 * 60), up_since=ago(3600))

STEPS = {  # state: (wanted up, wanted down)
    "active": ("", "shelve"),
    "stopped": ("start", "shelve"),
    "paused": ("unpause", "shelve"),
    "suspended": ("resume", "shelve"),
    "shelved": ("unshelve", "offload"),
    "shelved_offloaded": ("unshelve", ""),
    "rescued": ("unrescue", "unrescue"),
    "error": ("stop", "stop"),
}


@pytest.mark.parametrize("state", STEPS)
def test_each_state_has_its_step_either_way(state: str) -> None:
    look = Look(state.upper(), state)
    up, down = decide(look, "up", Facts(NOW)), decide(look, "down", Facts(NOW))
    assert ((up.step or ""), (down.step or "")) == STEPS[state]
    assert up.settled == (state == "active") and down.settled == (state == "shelved_offloaded")


@pytest.mark.parametrize(
    ("status", "step"),
    [("SHUTOFF", "start"), ("RESCUE", "unrescue"), ("SHELVED_OFFLOADED", "unshelve"), ("ERROR", "stop"), ("ACTIVE", None)],
)
def test_where_nova_hides_its_states_the_status_tells(status: str, step: str | None) -> None:
    assert decide(Look(status), "up", Facts(NOW)).step == step


def test_an_active_server_whose_guest_is_off_is_rebooted() -> None:
    assert decide(Look("ACTIVE", "active", power_state="shutdown"), "up", Facts(NOW)).step == "reboot"
    assert decide(Look("ACTIVE", "active", power_state="shutdown"), "down", Facts(NOW)).step == "shelve"


@pytest.mark.parametrize(
    ("newest", "up_since", "is_up"),
    [
        (Tried("shelve", ago(60), "accepted"), ago(600), False),
        (Tried("shelve", ago(60), "accepted"), ago(30), True),  # it was seen shelved, and somebody else woke it
        (Tried("shelve", ago(60), "refused"), ago(600), True),
        (Tried("shelve", ago(60), "unknown"), ago(600), True),  # it may never have been heard
        (Tried("reboot", ago(60), "accepted"), ago(600), True),
    ],
)
def test_after_a_shelve_that_came_to_nothing_the_guest_is_off(newest: Tried, up_since: datetime, is_up: bool) -> None:
    facts = Facts(NOW, up_since=up_since, tried=(Tried("unshelve", ago(600), "accepted"), newest))
    look = Look("ACTIVE", "active", power_state="running")
    assert corrected(look, facts).is_up == is_up
    assert corrected(look._replace(task_state="shelving"), facts).power_state == "running"


@pytest.mark.parametrize("state", ["up", "keep", "down"])
@pytest.mark.parametrize("task", ["shelving", "shelving_image_uploading", "shelving_offloading", "unshelving", "spawning"])
def test_while_something_is_under_way_nothing_is_asked(task: str, state) -> None:  # type: ignore[no-untyped-def]
    decision = decide(Look("ACTIVE", "active", task), state, Facts(NOW))
    assert decision.step is None and not decision.settled and not decision.tell


def test_a_person_hears_of_what_is_stuck() -> None:
    look = Look("SHELVED_OFFLOADED", "shelved_offloaded", "spawning")
    assert not decide(look, "up", Facts(NOW, state_since=ago(STUCK_AFTER))).tell
    assert "31 minutes" in decide(look, "up", Facts(NOW, state_since=ago(31 * 60))).tell


@pytest.mark.parametrize(
    ("look", "told"),
    [
        (Look("ERROR", "error", has_host=False, fault="No valid host"), "No valid host"),
        (Look("DELETED"), "no such server"),
        (Look("VERIFY_RESIZE", "resized"), "VERIFY_RESIZE"),
    ],
)
@pytest.mark.parametrize("state", ["up", "down", "keep"])
def test_what_only_a_person_can_mend_is_told(look: Look, told: str, state) -> None:  # type: ignore[no-untyped-def]
    decision = decide(look, state, Facts(NOW))
    assert decision.hopeless and decision.step is None and told in decision.tell


@pytest.mark.parametrize("state", ["up", "down"])
def test_a_lock_is_a_persons_to_open(state) -> None:  # type: ignore[no-untyped-def]
    decision = decide(Look("SHUTOFF", "stopped", locked=True), state, Facts(NOW))
    assert decision.hopeless and decision.step is None and "locked" in decision.tell


def test_a_lock_is_no_matter_where_nothing_is_to_be_done() -> None:
    assert decide(Look("ACTIVE", "active", locked=True), "up", Facts(NOW)).settled


def test_kept_as_it_is_nothing_is_asked_in_any_state() -> None:
    assert {decide(Look(state.upper(), state), "keep", Facts(NOW)).step for state in STEPS} == {None}


def test_the_same_step_is_tried_again_after_longer_and_longer() -> None:
    look = Look("SHELVED_OFFLOADED", "shelved_offloaded", has_host=False)
    tried = (Tried("unshelve", ago(200), "accepted"), Tried("unshelve", ago(59), "accepted"))
    assert decide(look, "up", Facts(NOW, tried=tried)).step is None
    assert decide(look, "up", Facts(NOW, tried=(*tried[:1], Tried("unshelve", ago(61), "accepted")))).step == "unshelve"
    assert delay(100) == LONGEST_DELAY


def test_who_waits_hears_why_the_last_try_failed() -> None:
    tried = tuple(Tried("unshelve", ago(seconds), "accepted") for seconds in range(MANY_TRIES, 0, -1))
    decision = decide(Look("SHELVED_OFFLOADED"), "up", Facts(NOW, tried=tried, failed="No valid host was found"))
    assert "No valid host" in decision.why and "No valid host" in decision.tell
    assert not decide(Look("SHELVED_OFFLOADED"), "up", Facts(NOW, tried=tried[1:])).tell


def test_tries_before_it_was_last_as_wanted_count_for_nothing() -> None:
    facts = Facts(NOW, tried=(Tried("shelve", ago(20), "accepted"),), reached=ago(10))
    assert decide(Look("ACTIVE"), "down", facts).step == "shelve"


def test_offloading_is_left_to_nova_where_the_tenant_may_not() -> None:
    facts = Facts(NOW, tried=(Tried("offload", ago(3600), "forbidden"),), reached=ago(60))
    decision = decide(Look("SHELVED"), "down", facts)
    assert decision.step is None and decision.settled


@pytest.mark.parametrize("outcome", [None, "unknown"])
@pytest.mark.parametrize("step", ["shelve", "stop", "reboot"])
def test_nobody_works_while_a_request_without_an_answer_may_take_it_down(step, outcome) -> None:  # type: ignore[no-untyped-def]
    doubtful = Facts(NOW, leases=(lease(),), tried=(Tried(step, ago(MAY_STILL_COME - 1), outcome),))
    assert not serves(Look("ACTIVE"), doubtful) and not decide(Look("ACTIVE"), "up", doubtful).settled
    over = doubtful._replace(tried=(Tried(step, ago(MAY_STILL_COME + 1), outcome),))
    assert serves(Look("ACTIVE"), over) and decide(Look("ACTIVE"), "up", over).settled
    assert serves(Look("ACTIVE"), doubtful._replace(tried=(Tried(step, ago(1), "refused"),)))


def test_a_lease_wants_it_up_and_idle_time_is_waited_for() -> None:
    assert wanted(WORKED).state == "up" and "lesson 1" in wanted(WORKED).why
    assert wanted(IDLE).state == "keep"
    assert wanted(LONG_IDLE).state == "down"
    assert wanted(Facts(NOW)).state == "down"


def test_a_server_that_somebody_else_started_is_given_the_same_time() -> None:
    assert wanted(Facts(NOW, needed_until=ago(90_000), up_since=ago(60))).state == "keep"
    assert wanted(Facts(NOW, up_since=ago(16 * 60))).state == "down"


def test_a_person_holds_it_up_for_a_while_or_for_good() -> None:
    for until in (None, NOW + timedelta(hours=1)):
        assert wanted(LONG_IDLE._replace(order=Order("up", "anna", "", ago(60), until))).state == "up"
    assert wanted(LONG_IDLE._replace(order=Order("up", "anna", "", ago(60), ago(1)))).state == "down"
    assert wanted(LONG_IDLE._replace(order=Order("lift", "anna", "", ago(60)))).state == "down"


def test_a_person_has_it_shelved_at_once_but_not_under_work() -> None:
    order = Order("down", "anna", "", ago(1), NOW + timedelta(hours=1))
    assert wanted(IDLE._replace(order=order)).state == "down"
    assert wanted(WORKED._replace(order=order)).state == "up"
    later = IDLE._replace(order=order._replace(given=ago(300)))  # work came and went since
    assert wanted(later).state == "keep"


@pytest.mark.parametrize(
    ("facts", "limits", "said"),
    [
        (Facts(NOW, order=Order("forbid", "anna", "holidays", ago(9))), Limits(), "forbidden by anna: holidays"),
        (Facts(NOW, used=2 * 3600), Limits(hours=2), "limit is 2"),
        (Facts(NOW, cost=10.0), Limits(cost=10), "limit is 10"),
    ],
)
def test_closed_nobody_is_let_in_and_who_works_may_finish(facts: Facts, limits: Limits, said: str) -> None:
    working = facts._replace(leases=(lease(),), up_since=ago(600))
    assert wanted(working, limits).state == "keep" and said in wanted(working, limits).closed
    assert wanted(facts._replace(needed_until=ago(1), up_since=ago(600)), limits).state == "down"
    assert not wanted(facts._replace(order=None), Limits()).closed


def test_a_limit_wins_over_a_person_who_holds_it_up() -> None:
    facts = IDLE._replace(order=Order("up", "anna", "", ago(60)), used=3600.0)
    assert wanted(facts, Limits(hours=1)).state == "down"


MOMENTS = st.integers(0, 10_000).map(lambda seconds: NOW + timedelta(seconds=seconds))
NEEDS = st.lists(st.builds(lambda owner, a, b: Need(owner, min(a, b), max(a, b)), st.sampled_from("abc"), MOMENTS, MOMENTS), max_size=6)


@given(MOMENTS, MOMENTS, NEEDS)
def test_the_shares_of_a_waking_add_up_to_it(a: datetime, b: datetime, needs: list[Need]) -> None:
    start, end = min(a, b), max(a, b)
    divided = shares(start, end, needs)
    assert sum(divided.values()) == pytest.approx((end - start).total_seconds())
    assert set(divided) <= {need.owner for need in needs} | {""}
    assert all(seconds >= 0 for seconds in divided.values())


def test_those_who_need_it_at_once_share_it_and_idle_time_is_nobodys() -> None:
    needs = [Need("a", ago(100), ago(50)), Need("b", ago(75), ago(25)), Need("b", ago(80), ago(60))]
    assert shares(ago(110), NOW, needs) == {"": 35.0, "a": 20 + 2.5 + 5 + 5.0, "b": 2.5 + 10 + 5 + 25.0}


@given(st.sampled_from([*STEPS, "building", "resized", "deleted"]), st.sampled_from(["", "shelving", "spawning"]), st.booleans())
def test_under_a_lease_no_step_ever_shelves(state: str, task: str, closed: bool) -> None:
    order = Order("forbid" if closed else "down", "anna", "", ago(1))
    facts = WORKED._replace(order=order)
    decision = decide(Look(state.upper(), state, task), wanted(facts).state, facts)
    assert decision.step not in ("shelve", "offload")
