"""``simulate``: a scenario's lanes, run to the end."""

from __future__ import annotations

import random
from collections.abc import Iterable, Mapping

from worker.portability.requests import Lane
from worker.simulation.agenda import Agenda
from worker.simulation.answers import Answers
from worker.simulation.outcome import LaneOutcome, LaneRecord, Outcome, Seen
from worker.simulation.process import Queue, WorkerProcess
from worker.simulation.scenario import Scenario
from worker.simulation.traffic import Message, arrivals
from worker.simulation.way import Way


def simulate(scenario: Scenario, traffic: Mapping[Lane, Iterable[Message]] | None = None) -> Outcome:
    """Let a scenario's messages come, and everything be decided.

    ``traffic`` takes the place of the scenario's own: each lane's messages, in the order they are sent.
    """
    agenda, answers = Agenda(), Answers()
    lanes = {
        lane: _RunningLane(
            lane, scenario, agenda, answers, (traffic or {}).get(lane) or arrivals(scenario, lane)
        )
        for lane in scenario.lanes
    }
    agenda.run()
    return Outcome(
        lanes={lane.value: running.outcome() for lane, running in lanes.items()},
        items=sum(running.record.sent for running in lanes.values()),
        look_ups=answers.bought,
        overtaken=answers.overtaken,
        fewest_look_ups=answers.fewest,
        calls=answers.calls,
        seconds=max(running.record.ended_at for running in lanes.values()),
    )


class _RunningLane:
    """A lane's traffic, queue and workers."""

    def __init__(
        self, lane: Lane, scenario: Scenario, agenda: Agenda, answers: Answers, traffic: Iterable[Message]
    ) -> None:
        plan, costs = scenario.lanes[lane], scenario.costs
        dice = random.Random(f"{scenario.seed} provider {lane}")  # noqa: S311 - no secret
        self.record = LaneRecord(plan, agenda, answers)
        self._agenda = agenda
        self._delivery_seconds = costs.delivery
        self._traffic = iter(traffic)
        self._queue = Queue(scenario.prefetch)
        way = Way(lane, plan, costs, agenda, answers, lambda numbers: scenario.latency.of(numbers, dice))
        self._workers = [
            WorkerProcess(
                plan=plan, costs=costs, agenda=agenda, queue=self._queue, way=way, record=self.record
            )
            for _ in range(plan.workers)
        ]
        self._queue.open(self._workers)
        self._half = self._end = Seen()
        agenda.at(scenario.seconds / 2, self._see_half)
        agenda.at(scenario.seconds, self._see_end)
        self._send_next()

    def outcome(self) -> LaneOutcome:
        """What became of it, once everything is decided."""
        core_seconds = sum(worker.core.busy_seconds for worker in self._workers)
        return self.record.outcome(self._half, self._end, core_seconds=core_seconds)

    def _send_next(self) -> None:
        message = next(self._traffic, None)
        if message is not None:
            self._agenda.at(message.sent_at + self._delivery_seconds, lambda: self._deliver(message))

    def _deliver(self, message: Message) -> None:
        self.record.sent += len(message.items)
        self._queue.put(message)
        self._send_next()

    def _see_half(self) -> None:
        self._half = self.record.seen()

    def _see_end(self) -> None:
        self._end = self.record.seen()
