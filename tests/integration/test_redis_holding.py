"""What Redis is given is in one place at any moment, whatever holders do, lose or die of."""

from __future__ import annotations

import random
from collections import Counter
from typing import Any

import pytest
import redis
from hypothesis import HealthCheck, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, rule, run_state_machine_as_test

from worker.redis_broker.holder import Holder
from worker.redis_broker.scripts import DEATHS, HELD, HOLDERS

LISTS = ["recharge", "sms", "sms\x06\x163"]


class Silent(Holder):
    """A holder whose thread does nothing: the test says when it is heard of."""

    def _run(self) -> None:
        pass


class Hands:
    """A holder, and what it believes it holds."""

    def __init__(self, client: redis.Redis) -> None:
        self.holder = Silent(client)
        self.holds: dict[int, tuple[str, bytes]] = {}

    def take(self, most: int) -> None:
        taken = self.holder.take_now(LISTS, most=most)
        assert not self.holds.keys() & {held.number for held in taken}
        self.holds |= {held.number: (held.list, held.element) for held in taken}

    def some(self, share: float, seed: int) -> list[int]:
        numbers = sorted(self.holds)
        return random.Random(seed).sample(numbers, round(share * len(numbers)))


class AnyFate(RuleBasedStateMachine):
    """Three holders, any of which may lose an answer, be let go, or die and be taken for dead."""

    client: redis.Redis
    pushed = 0

    @initialize()
    def begin(self) -> None:
        self.client.flushdb()
        self.hands = [Hands(self.client) for _ in range(3)]
        self.unsettled: Counter[tuple[str, bytes]] = Counter()

    @rule(name=st.sampled_from(LISTS), count=st.integers(1, 6))
    def push(self, name: str, count: int) -> None:
        for _ in range(count):
            self.pushed += 1
            element = b"\x00\xff\n%d" % self.pushed
            self.client.lpush(name, element)
            self.unsettled[name, element] += 1

    @rule(who=st.integers(0, 2), most=st.integers(1, 10))
    def take(self, who: int, most: int) -> None:
        self.hands[who].take(most)

    @rule(who=st.integers(0, 2), most=st.integers(1, 10))
    def take_and_lose_the_answer(self, who: int, most: int) -> None:
        """The next take brings what this one took."""
        holder = self.hands[who].holder
        self.client.execute_command(*holder.take_command(LISTS, most=most, most_of_each=[most] * len(LISTS)))

    @rule(who=st.integers(0, 2), share=st.floats(0, 1), seed=st.integers())
    def settle(self, who: int, share: float, seed: int) -> None:
        hands = self.hands[who]
        for number in hands.some(share, seed):
            hands.holder.settle(number)
            self.unsettled[hands.holds.pop(number)] -= 1
        hands.holder.give_back([])  # tells Redis what is settled

    @rule(who=st.integers(0, 2), share=st.floats(0, 1), seed=st.integers())
    def give_back(self, who: int, share: float, seed: int) -> None:
        hands = self.hands[who]
        numbers = hands.some(share, seed)
        hands.holder.give_back(numbers)
        for number in numbers:
            del hands.holds[number]

    @rule(who=st.integers(0, 2), late=st.booleans())
    def let_go(self, who: int, late: bool) -> None:
        """A connection ends; a take that was on its way may arrive after that."""
        gone, self.hands[who] = self.hands[who].holder, Hands(self.client)
        gone.take_now([], most=1)  # it is known to Redis
        gone.let_go()
        if late:
            command = gone.take_command(LISTS, most=3, most_of_each=[3] * len(LISTS))
            assert self.client.execute_command(*command) is None

    @rule(who=st.integers(0, 2), wakes=st.booleans(), share=st.floats(0, 1), seed=st.integers())
    def die(self, who: int, wakes: bool, share: float, seed: int) -> None:
        """A holder falls silent, and others give back what it held; it may wake and settle that in vain."""
        dead = self.hands[who]
        self.client.zadd(HOLDERS, {dead.holder.name: 1}, xx=True)
        self.hands[(who + 1) % 3].holder.keep()
        if not wakes:
            self.hands[who] = Hands(self.client)
            return
        for number in dead.some(share, seed):
            dead.holder.settle(number)
        dead.holder.give_back([])
        dead.holds.clear()
        dead.holder.keep()

    @invariant()
    def everything_is_in_one_place(self) -> None:
        if hasattr(self, "hands"):
            assert self.in_redis() == +self.unsettled

    def in_redis(self) -> Counter[tuple[str, bytes]]:
        found: Counter[tuple[str, bytes]] = Counter()
        for name in LISTS:
            found.update((name, element) for element in self.client.lrange(name, 0, -1))
        for key in self.client.keys(f"{HELD}*"):
            for field, value in self.client.hgetall(key).items():
                if field != b"last":
                    name, _, element = value.partition(b"\n")
                    found[name.decode(), element] += 1
        return found


def test_everything_is_in_one_place(redis_url: str) -> None:
    with redis.Redis.from_url(redis_url) as client:
        machine: Any = type("AnyFateHere", (AnyFate,), {"client": client})
        run_state_machine_as_test(
            machine,
            settings=settings(
                max_examples=60,
                stateful_step_count=30,
                deadline=None,
                suppress_health_check=list(HealthCheck),
            ),
        )


@pytest.fixture
def client(redis_url: str) -> Any:
    with redis.Redis.from_url(redis_url) as client:
        yield client


def test_elements_come_back_in_their_order(client: redis.Redis) -> None:
    client.lpush("sms", *range(30))
    hands = Hands(client)
    hands.take(20)
    hands.holder.give_back(hands.some(1, seed=5))
    hands.holds.clear()
    hands.take(30)
    assert [int(element) for _, element in hands.holds.values()] == list(range(30))


def test_lists_share_a_take(client: redis.Redis) -> None:
    client.lpush("sms", *range(500))
    client.lpush("recharge", *range(3))
    taken = Silent(client).take_now(["sms", "recharge"], most=100)
    assert len(taken) == 100
    command = Silent(client).take_command(["sms", "recharge"], most=100, most_of_each=[50, 50])
    names = Counter(name for _, name, _, _ in client.execute_command(*command))
    assert names == {b"sms": 50, b"recharge": 3}


def test_a_hundred_deaths_make_a_dead_letter(client: redis.Redis) -> None:
    client.lpush("sms", b"\xff deadly", b"\xff harmless")
    survivor = Silent(client)
    for deaths in range(101):
        victim = Silent(client)
        taken = victim.take_now(["sms"], most=1)
        assert [(held.element, held.deaths) for held in taken] == [(b"\xff deadly", deaths)]
        client.zadd(HOLDERS, {victim.name: 1})
        survivor.keep()
    assert client.lrange("presend.dead", 0, -1) == [b"\xff deadly"]
    assert client.lrange("sms", 0, -1) == [b"\xff harmless"]
    (held,) = survivor.take_now(["presend.dead"], most=1)
    survivor.settle(held.number)
    survivor.let_go()
    assert not client.exists(DEATHS), "the count goes with the message"
