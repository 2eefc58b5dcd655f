"""What the watchdog knows by its own notes, and what it makes of that without the leases."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from itertools import pairwise

from hypothesis import given
from hypothesis import strategies as st

from dubbing.power import Decision, Limits, Look, Tried
from dubbing.watchdog import LONGEST_GAP, Notes, noted, over_limit, without_leases

NOW = datetime(2026, 3, 1, 12, tzinfo=UTC)
UP, DOWN, SHELVING = Look("ACTIVE", "active"), Look("SHELVED_OFFLOADED", "shelved_offloaded"), Look("ACTIVE", "active", "shelving")
LEASE = 3600.0
LIMITS = Limits(grace=900.0)


def minutes(count: float) -> timedelta:
    return timedelta(minutes=count)


def watched(count: int, look: Look | None = UP, leases_there: bool = False, notes: Notes | None = None, start: datetime = NOW) -> Notes:
    """After passes at minute 0, 1, … count."""
    notes = notes or Notes()
    for minute in range(count + 1):
        notes = noted(notes, start + minutes(minute), look, leases_there)
    return notes


def alone(notes: Notes, look: Look = UP, limits: Limits = LIMITS, answers: bool = False) -> Decision:
    return without_leases(look, notes, limits, 2.0, LEASE, answers)


def test_it_is_left_up_as_long_as_a_lease_may_hold_and_shelved_then() -> None:
    assert alone(watched(74)).step is None
    assert alone(watched(75)).step == "shelve"
    assert "1 minutes more" in alone(watched(74)).why


def test_a_database_that_came_back_makes_it_begin_anew() -> None:
    notes = watched(70)
    notes = noted(notes, NOW + minutes(71), UP, leases_there=True)
    assert alone(watched(74, notes=notes, start=NOW + minutes(72))).step is None


def test_a_server_that_was_just_woken_has_its_hour_too() -> None:
    notes = watched(300, DOWN)
    notes = watched(74, notes=notes, start=NOW + minutes(301))
    assert alone(notes).step is None
    assert alone(noted(notes, NOW + minutes(376), UP, leases_there=False)).step == "shelve"


def test_what_it_did_not_watch_it_does_not_know() -> None:
    notes = watched(70)
    later = noted(notes, NOW + minutes(70) + LONGEST_GAP + minutes(1), UP, leases_there=False)
    assert later.lost_for() == later.up_for() == 0 and alone(later).step is None
    assert later.used(NOW + minutes(86)) == 70 * 60


def test_a_clock_that_is_set_back_shelves_nothing() -> None:
    notes = watched(100)
    back = noted(notes, NOW - minutes(30), UP, leases_there=False)
    assert back.up_for() == back.lost_for() == 0 and alone(back).step is None


def test_the_time_between_two_wakings_is_not_used() -> None:
    notes = watched(5)
    notes = noted(notes, NOW + minutes(6), DOWN, leases_there=True)
    notes = watched(5, notes=notes, start=NOW + minutes(10))
    assert notes.used(NOW + minutes(15)) == 600 and notes.up_for() == 300


def test_a_cloud_that_is_away_for_a_look_is_no_gap() -> None:
    notes = noted(watched(10), NOW + minutes(11), None, leases_there=False)
    assert notes.up_for() == 0, "it isn't known to be up"
    assert noted(notes, NOW + minutes(12), UP, leases_there=False).up_for() == 12 * 60


def test_where_the_database_answers_others_only_the_limits_count_and_an_hour_more() -> None:
    limits = Limits(hours=2)
    assert alone(watched(1000), answers=True).step is None
    assert alone(watched(179), limits=limits, answers=True).step is None
    assert alone(watched(181), limits=limits, answers=True).step == "shelve"
    assert alone(watched(181), limits=Limits(cost=4.0), answers=True).step == "shelve"
    assert alone(watched(179), limits=Limits(cost=4.0), answers=True).step is None


def test_a_step_is_not_repeated_while_it_is_under_way_nor_at_once() -> None:
    notes = watched(80)
    assert alone(notes, SHELVING).step is None
    tried = noted(notes, NOW + minutes(80), UP, False, Tried("shelve", NOW + minutes(80), "accepted"))
    assert alone(noted(tried, NOW + minutes(80.2), UP, leases_there=False)).step is None
    assert alone(noted(tried, NOW + minutes(81), UP, leases_there=False)).step == "shelve"
    assert alone(tried, DOWN).settled


def test_what_no_step_leads_out_of_is_for_a_person() -> None:
    decision = alone(watched(80), Look("ERROR", "error", has_host=False))
    assert decision.hopeless and "provider" in decision.tell


def test_limits_are_seen_by_the_notes() -> None:
    notes = watched(121)
    assert "limit is 2" in over_limit(notes, Limits(hours=2), 1.0)
    assert "limit is 3" in over_limit(notes, Limits(cost=3), 2.0)
    assert not over_limit(notes, Limits(hours=3, cost=5), 2.0)
    assert over_limit(noted(notes, NOW + timedelta(hours=27), DOWN, True), Limits(hours=0.1), 1.0) == "", "of yesterday"


def test_notes_are_the_same_after_they_were_kept() -> None:
    notes = noted(watched(3), NOW + minutes(4), UP, False, Tried("shelve", NOW, "unknown"))
    assert Notes.model_validate_json(notes.model_dump_json()) == notes


PASSES = st.lists(st.tuples(st.floats(-30, 90), st.sampled_from([UP, DOWN, SHELVING, None]), st.booleans()), max_size=60)


@given(PASSES)
def test_use_is_never_more_than_the_time_that_passed(passes: list[tuple[float, Look | None, bool]]) -> None:
    notes, now, first = Notes(), NOW, NOW
    for gap, look, leases_there in passes:
        now += minutes(gap)
        first = min(first, now)
        notes = noted(notes, now, look, leases_there)
        assert 0 <= notes.used(now) <= min(86400.0, (now - first).total_seconds())
        assert all(start <= end <= now for start, end in notes.up)
        assert all(one[1] <= other[0] for one, other in pairwise(notes.up))
        if leases_there:
            assert notes.lost_for() == 0
