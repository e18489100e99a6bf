import pytest

from reward_service.core.fair_share import JobPolicies, JobPolicy
from reward_service.core.queue_room import QueueRoom
from reward_service.errors import OverloadedError, PayloadTooLargeError


def filled(room: QueueRoom, job: str, items: int, tokens_each: int = 1) -> int:
    """How many items of a job find room, one after the other."""
    for count in range(items):
        try:
            room.check(job, 1, tokens_each)
        except OverloadedError:
            return count
        room.add(job, 1, tokens_each)
    return items


def test_a_job_that_floods_leaves_the_others_their_share() -> None:
    room = QueueRoom(100, 10**6, JobPolicies())
    assert filled(room, "flood", 1000) == 100
    assert filled(room, "light", 1000) == 50, "half of the room"
    assert filled(room, "third", 1000) == 33
    assert filled(room, "flood", 1) == 0
    assert room.items == 183


def test_shares_follow_the_weights() -> None:
    room = QueueRoom(100, 10**6, JobPolicies(jobs={"light": JobPolicy(weight=3.0)}))
    filled(room, "flood", 1000)
    assert filled(room, "light", 1000) == 75


def test_a_job_that_has_nothing_waiting_is_let_in_however_small_its_share() -> None:
    room = QueueRoom(100, 1000, JobPolicies(jobs={"flood": JobPolicy(weight=100.0)}))
    filled(room, "flood", 1000, tokens_each=10)
    room.check("light", 20, 200)
    room.reserve("light", 20)
    with pytest.raises(OverloadedError):
        room.check("light", 1, 0)
    room.release("light", 20)
    room.check("light", 20, 200)
    room.add("light", 20, 200)
    with pytest.raises(OverloadedError):
        room.check("light", 1, 1)
    room.remove("light", 20, 200)
    room.check("light", 20, 200)
    with pytest.raises(OverloadedError):
        room.check("flood", 1, 10)


def test_all_together_have_twice_the_room() -> None:
    room = QueueRoom(100, 10**6, JobPolicies())
    for number in range(100):
        filled(room, f"job {number}", 1000)
    assert room.items == 200


def test_tokens_are_shared_alike() -> None:
    room = QueueRoom(10**6, 1000, JobPolicies())
    assert filled(room, "flood", 1000, tokens_each=10) == 100
    assert filled(room, "light", 1000, tokens_each=10) == 50
    with pytest.raises(PayloadTooLargeError):
        room.check("light", 1, 1001)


def test_what_leaves_makes_room() -> None:
    room = QueueRoom(2, 100, JobPolicies())
    room.reserve("a", 1)
    room.add("a", 1, 5)
    assert filled(room, "a", 5) == 0
    room.release("a", 1)
    room.remove("a", 1, 5)
    assert (room.items, room.tokens) == (0, 0)
    assert filled(room, "a", 5) == 2
