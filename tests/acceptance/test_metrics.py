"""What Prometheus is told by real processes: the counts of the ledger, and the fleet as upkeep sees it."""

from __future__ import annotations

import socket
import time

from tests.acceptance.harness import Place
from tests.acceptance.provider import plain_numbers
from tests.acceptance.test_flower import numbers_in
from tests.acceptance.waiting import eventually
from tests.scraping import free_ports, scrape


def test_the_counts_are_those_of_the_ledger_and_the_fleet_is_upkeeps(here: Place) -> None:
    port = free_ports(4)
    here.settings |= {"metrics_port": str(port), "daily_budget": "1000", "balance_seconds": "1"}
    recharge, sms, upkeep = (port + each for each in range(3))
    here.worker("recharge")
    here.worker("sms")
    numbers = plain_numbers(60)
    here.send_many("recharge", numbers[:30])
    here.decided(30)
    here.send_many("sms", numbers[30:])
    here.send("sms.recheck_many", items=[{"message_id": "M1", "mobile": numbers[0], "operator": "CUCC"}])
    for wrong in range(3):
        here.send("sms.recheck", message_id=f"W{wrong}", mobile=numbers[wrong], operator="Vodafone")
    rows = here.check_settled(61)
    eventually(lambda: here.count("dead_letter") == 3, "the dead letters")
    here.upkeep()

    def all_counted() -> bool:
        ended = [
            scrape(sms).sum("presend_messages_ended_total", outcome=each) for each in ("decided", "rejected")
        ]
        return ended == [31, 3] and scrape(upkeep).sum("presend_dead_letters", replayed="no") == 3

    eventually(all_counted, "what was sent to be counted", seconds=40)
    seen = {lane: scrape(at) for lane, at in (("recharge", recharge), ("sms", sms))}
    for lane, its in seen.items():
        decided = [row for row in rows if row["lane"] == lane]
        assert its.sum("presend_decisions_total", lane=lane) == len(decided)
        assert its.sum("presend_wait_seconds_count", lane=lane) == len(decided)
        for decision, reason in {(row["decision"], row["reason"]) for row in decided}:
            count = len([row for row in decided if (row["decision"], row["reason"]) == (decision, reason)])
            assert its.sum("presend_decisions_total", decision=decision, reason=reason) == count
        live = [row for row in decided if row["answered_from"] == "live"]
        assert its.sum("presend_answers_total", answered_from="live") == len(live)
        assert its.sum("presend_numbers_asked_total", lane=lane) == len(live)
        assert its.sum("presend_numbers_billed_total", lane=lane) == len(live)
        assert its.sum("presend_provider_codes_total", lane=lane, code="0") == len(live)
        assert its.sum("presend_events_confirmed_total") == len(decided)
        assert its.sum("presend_provider_request_seconds_count") == its.sum("presend_call_numbers_count")
        assert its.sum("presend_slots", lane=lane) == 8
        for name in ("presend_messages_held", "presend_messages_held_oldest_seconds"):
            assert its.samples(name) == {frozenset({("lane", lane)}): 0}
        assert its.sum("presend_build_info", role=lane) == 1
        assert not numbers_in(its.text, numbers)
    assert seen["recharge"].sum("presend_messages_received_total") == 30
    assert seen["sms"].sum("presend_messages_received_total") == 34
    assert seen["sms"].sum("presend_dead_letters_parked_total", task="sms.recheck") == 3
    assert seen["sms"].sum("presend_answers_total", answered_from="stored") == 1, "the recharge's record"
    assert seen["sms"].sum("presend_record_age_seconds_count", lane="sms") == 1

    def fleet_seen() -> bool:
        its = scrape(upkeep)
        return its.sum("presend_spend_day_numbers") == 60 and bool(
            its.samples("presend_balance_left_seconds")
        )

    eventually(fleet_seen, "spend and balance", seconds=10)
    its = scrape(upkeep)
    assert its.sum("presend_upkeep_leader") == 1
    assert its.sum("presend_workers_alive", lane="sms") == 1
    waiting = its.samples("presend_queue_messages")
    assert set(waiting.values()) == {0}
    assert {dict(labels)["queue"] for labels in waiting} >= {"recharge", "sms"}
    assert its.sum("presend_queue_consumers", queue="sms") == (0 if here.on_redis else 1)
    assert its.sum("presend_budget_limit_numbers", lane="sms") == 800
    assert its.sum("presend_budget_taken_numbers") == 60
    assert its.sum("presend_gate_closed") == 0
    balance = its.sum("presend_provider_balance_numbers")
    assert its.sum("presend_balance_left_seconds") == 86400 * balance / 60
    for source in ("database", "broker", "provider"):
        (at,) = [
            value
            for labels, value in its.samples("presend_fleet_refreshed_timestamp_seconds").items()
            if ("source", source) in labels
        ]
        assert time.time() - at < 20
    with socket.create_connection(("127.0.0.1", recharge)), socket.create_connection(("127.0.0.1", upkeep)):
        here.stop()  # whom a scraper that says nothing does not keep
