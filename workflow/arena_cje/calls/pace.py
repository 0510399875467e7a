"""When requests may be sent: the schedule that all jobs at an endpoint share, as pure functions of its state and the time.

A request is sent at

    t = max(now, next),   next <- t + spacing,   spacing = max(60 / requests_per_minute, 1 / rate)

(the generic cell rate algorithm, GCRA). `rate` is the number of requests a second that the server seems to grant. It is
unknown until the first answer 429, and then follows the answers:

    a reply    rate <- 1.02 rate        a 429    rate <- 0.94 rate

so that it settles where a quarter of the answers are 429: it finds the rate that a server grants, and is not moved by a server
that answers 429 to some requests whatever their rate. A 429 delays its own request. Ten in a row with no reply between them
concern all requests: the rate is halved, and all pause, for the seconds in Retry-After or, without it, for 1, 2, 4, ... seconds.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, replace

GROWTH = 1.02  # factor of the rate after a reply
DECREASE = 0.94  # factor of the rate after a 429
LOWEST_RATE = 0.5  # requests a second; below it the server is left to its Retry-After
SLACK = 0.05  # seconds that a late request may make up for; none where the user has set the rate
MEMORY = 1.0  # seconds over which the rate of requests is measured
FORGET = 60.0  # seconds without a request, a pause apart, after which what the server grants is unknown again
IN_A_ROW = 10  # 429s with no reply between them after which all requests pause


@dataclass(frozen=True)
class Pace:
    """State of the schedule. Times are seconds of a clock that all processes of the machine share."""

    next: float = 0.0  # earliest time of the next request
    paused_until: float = 0.0
    pause_began: float = 0.0
    n_pauses: int = 0  # pauses since the last reply
    n_rejected: int = 0  # 429s since the last reply, without those of requests that were sent before the last pause
    rate: float | None = None  # requests a second that the server seems to grant; None: unknown
    began: float = 0.0  # time of the first request
    sent_at: float = 0.0  # time of the last request
    n_sent: float = 0.0  # requests that were sent lately, each weighted by exp(-age / MEMORY)

    @property
    def is_moderated(self) -> bool:
        """Whether a reply changes the state."""
        return self.rate is not None or self.n_rejected > 0 or self.n_pauses > 0

    @property
    def sent_rate(self) -> float:
        """Requests a second that were sent lately."""
        seconds = max(self.sent_at - self.began, 0.1)
        return self.n_sent / (MEMORY * (1 - math.exp(-seconds / MEMORY)))


def take_turn(pace: Pace, now: float, interval: float = 0.0) -> tuple[float, Pace]:
    """Time at which the next request may be sent, and the state after it. interval: seconds between requests, by the user."""
    if now - max(pace.sent_at, pace.paused_until) > FORGET:
        pace = replace(pace, began=now, n_sent=0.0, rate=None, n_rejected=0, n_pauses=0)
    spacing = max(interval, 1 / pace.rate if pace.rate else 0.0)
    due = pace.next if spacing == interval else max(pace.next, now - SLACK)
    turn = max(now, due)
    n_sent = pace.n_sent * math.exp(min(pace.sent_at - turn, 0.0) / MEMORY) + 1
    next_turn = (turn if spacing == interval else due) + spacing
    return turn, replace(pace, next=next_turn, sent_at=turn, n_sent=n_sent)


def after_reply(pace: Pace) -> Pace:
    """The state after a reply: the rate grows as long as it is made use of."""
    rate = None if pace.rate is None else min(pace.rate * GROWTH, max(pace.rate, 2 * pace.sent_rate))
    return replace(pace, rate=rate, n_rejected=0, n_pauses=0)


def after_rejection(
    pace: Pace, now: float, sent_at: float, retry_after: float | None, first_pause: float, longest_pause: float
) -> Pace:
    """The state after a 429, or another answer with Retry-After, to a request that was sent at `sent_at`.

    first_pause, longest_pause: seconds, where the reply has no Retry-After.
    """
    rate = max(DECREASE * (pace.rate or 2 * pace.sent_rate), LOWEST_RATE)
    pace = replace(pace, rate=rate)
    if sent_at < pace.pause_began:  # the pause follows from answers like this one
        if retry_after is not None:
            pace = replace(pace, paused_until=max(pace.paused_until, now + retry_after))
        return pace
    pace = replace(pace, n_rejected=pace.n_rejected + 1)
    if pace.n_rejected < IN_A_ROW:
        return pace
    pause = min(first_pause * 2**pace.n_pauses, longest_pause) if retry_after is None else retry_after
    return replace(
        pace,
        rate=max(rate / 2, LOWEST_RATE),
        paused_until=max(pace.paused_until, now + pause),
        pause_began=now,
        n_pauses=min(pace.n_pauses + 1, 30),
        n_rejected=0,
    )
