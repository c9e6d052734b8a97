"""presend: between the queues of a recharge system and an SMS gateway, and a paid carrier look-up.

The one way data flows, and where each step lives:

1. ``intake``       a queue message becomes check requests, or a dead letter with its reason
2. ``batching``     a lane gathers requests; ``lane`` gives it threads, ``consumer`` and ``feed`` fill it
3. ``carrier``      one provider call; ``asking`` says whether, ``sharing`` who buys, ``buyer`` makes it
4. ``portability``  pure rules decide
5. ``storage``      one transaction a batch: records, changes, ledger, outbox mark; ``store`` is the seam
6. ``publisher``    events with confirms; then the messages are acknowledged, last of all

Beside that way: ``lane_*`` stop a lane and let it go on, ``prefetch`` says how much of a queue is held and
``unsettled`` what is, ``parking`` stores dead letters, ``suspicion`` finds the item that kills its worker.

``pipeline`` reads like these six lines. ``bootstrap`` builds it from ``config``; ``app`` is the Celery app;
``serve`` answers the provider's own contract over the same pipeline, lane ``direct``;
``console`` shows operators what happens and lets them act; ``web`` is what web sites stand on;
``upkeep`` is the one process that sends what was left unsent and sweeps up after crashes.
"""
