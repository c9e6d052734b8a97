"""The soak's arithmetic; the soak itself takes an hour (``make faults PART=soak``)."""

from __future__ import annotations

import random

from tests.faults.parts.soak import grown, slope


def test_what_grows_is_seen_through_the_noise() -> None:
    chance = random.Random(1)
    hour = [5.0 * number for number in range(720)]
    flat = slope([(at, 90 + chance.gauss(0, 1)) for at in hour])
    leaking = slope([(at, 90 + 3 * at / 3600 + chance.gauss(0, 1)) for at in hour])
    assert abs(flat.an_hour) < 0.5
    assert abs(leaking.an_hour - 3) < 0.5
    assert grown({"sms resident_mb": flat, "recharge resident_mb": leaking}) == [
        f"recharge resident_mb {leaking}"
    ]
