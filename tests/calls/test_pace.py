"""The schedule of requests, simulated with servers and a clock: it reaches most of the rate that each server grants."""

from __future__ import annotations

import heapq
import random
from dataclasses import dataclass, field

import pytest

from arena_cje.calls import pace
from arena_cje.calls.pace import IN_A_ROW, Pace

BACKOFF = (1.0, 60.0)


@dataclass
class Bucket:
    """A server that grants `rate` requests a second, and `burst` at once; its Retry-After has whole seconds, or there is none."""

    rate: float
    burst: float = 5.0
    tells: bool = False
    counts_rejected: bool = False  # a rejected request takes from the bucket as well
    filled_at: float = 0.0
    level: float = field(init=False)

    def __post_init__(self):
        self.level = self.burst

    def answer(self, now):
        """True, or seconds to wait, or None for a rejection without Retry-After."""
        self.level = min(self.burst, self.level + (now - self.filled_at) * self.rate)
        self.filled_at = now
        if self.level >= 1:
            self.level -= 1
            return True
        if self.counts_rejected:
            self.level = max(self.level - 0.5, -self.burst)
        return 1.0 if self.tells else None


@dataclass
class Window:
    """A server that grants `quota` requests in each window of `length` seconds, with a Retry-After to the next window."""

    quota: int
    length: float
    begun: float = 0.0
    used: int = 0

    def answer(self, now):
        if now >= self.begun + self.length:
            self.begun, self.used = now - now % self.length, 0
        self.used += 1
        return True if self.used <= self.quota else self.begun + self.length - now


@dataclass
class Share:
    """A server that rejects a share of the requests, whatever their rate."""

    share: float
    rng: random.Random = field(default_factory=lambda: random.Random(1))

    def answer(self, now):
        return None if self.rng.random() < self.share else True


@dataclass
class RequestTimes:
    granted: list[float]  # times of the requests that were granted
    rejected: list[float]


def simulate(server, *, seconds, limit=8, latency=0.05, interval=0.0, tasks_per_slot=16):
    """Requests without end, `limit` at a time, for so many seconds of the simulated clock."""
    state, rng = Pace(), random.Random(0)
    times = RequestTimes([], [])
    waiting, sleeping, in_flight = limit * tasks_per_slot, [], []  # requests; ends of their waits; (end, start, answer)
    now = 0.0
    while now < seconds:
        while sleeping and sleeping[0] <= now:
            heapq.heappop(sleeping)
            waiting += 1
        if waiting and len(in_flight) < limit and state.paused_until <= now:
            turn, state = pace.take_turn(state, now, interval)
            now = max(now, turn)
            answer = server.answer(now)
            waiting -= 1
            (times.granted if answer is True else times.rejected).append(now)
            heapq.heappush(in_flight, (now + (latency if answer is True else 0.01), now, answer is not True, answer))
        else:
            ends = [entry[0] for entry in in_flight[:1]] + sleeping[:1]
            if waiting and len(in_flight) < limit:
                ends.append(state.paused_until)
            now = max(now, min(ends))
        while in_flight and in_flight[0][0] <= now:
            end, start, rejected, answer = heapq.heappop(in_flight)
            if not rejected:
                state = pace.after_reply(state)
                waiting += 1  # the next request takes its place
            else:
                state = pace.after_rejection(state, end, start, answer, *BACKOFF)
                longest = 2.0 if state.n_pauses == 0 else 60.0
                heapq.heappush(sleeping, end + max(answer or 0.0, min(1.0, longest) + rng.random()))
    return times


@pytest.mark.parametrize("latency", [0.02, 0.5])
@pytest.mark.parametrize("limit", [8, 64])
@pytest.mark.parametrize("tells", [False, True])
@pytest.mark.parametrize("counts_rejected", [False, True])
@pytest.mark.parametrize("rate", [2, 20, 100])
def test_most_of_the_rate_that_a_server_grants_is_reached(rate, tells, counts_rejected, limit, latency):
    server, seconds = Bucket(rate, tells=tells, counts_rejected=counts_rejected), max(60, 400 / rate)
    simulated = simulate(server, seconds=seconds, limit=limit, latency=latency)
    possible = min(rate, limit / latency)
    assert len(simulated.granted) / seconds >= 0.7 * possible
    assert sum(time > seconds / 2 for time in simulated.rejected) / (seconds / 2) <= 0.4 * possible


@pytest.mark.parametrize("limit", [8, 64])
@pytest.mark.parametrize("share", [0.01, 0.05, 0.1, 0.2])
def test_random_429s_cost_little_more_than_their_share_of_the_rate(share, limit):
    simulated = simulate(Share(share), seconds=60, limit=limit)
    assert len(simulated.granted) / 60 >= 0.7 * (1 - share) * limit / 0.05


@pytest.mark.parametrize(("quota", "length"), [(60, 60.0), (20, 1.0), (600, 60.0)])
def test_most_of_the_quota_of_a_time_window_is_used_with_few_rejections(quota, length):
    simulated = simulate(Window(quota, length), seconds=300)
    assert len(simulated.granted) >= 0.7 * quota * 300 / length
    assert len(simulated.rejected) < len(simulated.granted) / 2


# Single steps of the schedule


def rejected(state, times, *, at, sent_at=None, retry_after=None):
    """The state after so many 429s at a time."""
    for _ in range(times):
        state = pace.after_rejection(state, at, at if sent_at is None else sent_at, retry_after, *BACKOFF)
    return state


def test_a_few_429s_between_replies_cause_no_pause():
    _, state = pace.take_turn(Pace(), 100.0)
    for _ in range(5 * IN_A_ROW):
        state = pace.after_reply(rejected(state, IN_A_ROW - 1, at=100.0, retry_after=300.0))
    assert state.paused_until == 0.0
    assert state.n_pauses == state.n_rejected == 0


def test_consecutive_429s_pause_all_requests_for_retry_after():
    state = rejected(Pace(), IN_A_ROW, at=100.0, retry_after=7.0)
    assert state.paused_until == 107.0
    # Rejections of requests sent before the pause that arrive in it lengthen it if their Retry-After ends later.
    assert rejected(state, 50, at=101.0, sent_at=99.0, retry_after=3.0).paused_until == 107.0
    assert rejected(state, 1, at=101.0, sent_at=99.0, retry_after=9.0).paused_until == 110.0


def test_pauses_double_up_to_a_minute_until_a_reply_arrives():
    state, now, pauses = Pace(), 100.0, []
    for _ in range(9):
        state = rejected(state, IN_A_ROW, at=now)
        state = rejected(state, IN_A_ROW, at=now, sent_at=now - 1)  # in flight when the pause began
        pauses.append(state.paused_until - now)
        now = state.paused_until + 1
    assert pauses == [1, 2, 4, 8, 16, 32, 60, 60, 60]
    state = rejected(pace.after_reply(state), IN_A_ROW, at=now)
    assert state.paused_until - now == 1


def test_the_rate_that_the_user_set_is_never_exceeded():
    state, turns, now = Pace(), [], 100.0
    for _ in range(50):
        turn, state = pace.take_turn(state, now, 0.5)
        turns.append(turn)
        state = pace.after_reply(state)
        now = max(now, turn) + random.Random(turn).choice([0.0, 0.7])
    assert min(later - earlier for earlier, later in zip(turns, turns[1:], strict=False)) >= 0.5 - 1e-9


def test_a_rate_is_forgotten_after_a_while_without_requests():
    _, state = pace.take_turn(Pace(), 100.0)
    state = rejected(state, 3, at=100.0)
    assert state.rate is not None
    assert pace.take_turn(state, 100.0 + pace.FORGET - 1)[1].rate == state.rate
    assert pace.take_turn(state, 100.0 + pace.FORGET + 1)[1].rate is None


def test_the_rate_limit_grows_only_as_far_as_the_requests_use_it():
    state, now = Pace(), 100.0
    for _ in range(2000):
        turn, state = pace.take_turn(state, now)
        state = pace.after_reply(rejected(state, 1, at=turn) if now == 100.0 else state)
        now = turn + 0.1  # ten requests a second, whatever the rate
    assert 15 < state.rate < 25
