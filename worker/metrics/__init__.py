"""What Prometheus sees: every metric, and the ``/metrics`` endpoint of a process.

``messages``   the queue's messages, and what is parked
``batches``    what batches decided, how long their requests waited, how old the records were that answered
``provider``   calls, codes, numbers asked and billed
``events``     what the broker confirmed
``lanes``      what a process holds now, read when it is scraped
``fleet``      what all processes share, refreshed by upkeep
``endpoint``   serves them; ``registry`` is where they are

Counts are taken once a batch, not once a message, and no label holds a number or words of others
(docs/metrics.md lists them all; a test holds it to this package). No other module imports prometheus_client.
"""
