from __future__ import annotations

import logging

import pytest

from policies.breaker import Breaker


class Clock:
    now = 100.0

    def __call__(self) -> float:
        return self.now


@pytest.fixture
def clock() -> Clock:
    return Clock()


@pytest.fixture
def breaker(clock: Clock) -> Breaker:
    return Breaker("opa.example:8181", failures=3, pause=2.0, clock=clock)


def fail(breaker: Breaker, times: int) -> None:
    for _ in range(times):
        assert breaker.enter()
        breaker.leave(False)


def test_it_asks_until_so_many_failures_in_a_row(breaker: Breaker) -> None:
    fail(breaker, 2)
    assert breaker.enter()
    breaker.leave(True)
    fail(breaker, 2)
    assert not breaker.paused
    fail(breaker, 1)
    assert breaker.paused
    assert not breaker.enter()


def test_after_the_pause_one_asks_and_the_others_wait_for_its_answer(breaker: Breaker, clock: Clock) -> None:
    fail(breaker, 3)
    clock.now += 1.9
    assert not breaker.enter()
    clock.now += 0.2
    assert breaker.enter()
    assert not breaker.enter(), "one at a time"
    breaker.leave(False)
    assert not breaker.enter(), "the pause begins anew"
    clock.now += 2.1
    assert breaker.enter()
    breaker.leave(True)
    assert not breaker.paused
    assert breaker.enter()
    assert breaker.enter()


def test_a_call_that_was_given_up_neither_opens_nor_blocks_it(breaker: Breaker, clock: Clock) -> None:
    fail(breaker, 3)
    clock.now += 2.1
    assert breaker.enter()
    breaker.leave(None)
    assert breaker.enter(), "the next one asks instead"
    assert breaker.paused


def test_the_log_says_when_it_stops_and_when_it_asks_again(
    breaker: Breaker, clock: Clock, caplog: pytest.LogCaptureFixture
) -> None:
    with caplog.at_level(logging.INFO, "portcullis.policies"):
        fail(breaker, 3)
        clock.now += 2.1
        breaker.enter()
        breaker.leave(False)
        clock.now += 2.1
        breaker.enter()
        breaker.leave(True)
    assert [record.levelname for record in caplog.records] == ["ERROR", "WARNING"]
    assert all("opa.example:8181" in record.getMessage() for record in caplog.records)
