"""What lanes would do, simulated: throughput, waits and look-ups for traffic that nobody has sent yet.

Real: :class:`~worker.batching.Batcher`, one for each simulated process, on a clock that jumps from event to
event. Modelled, module by module:

``scenario``   what is simulated: traffic, settings, provider, costs
``traffic``    when which number is asked for: Poisson arrivals, Zipf repeats
``process``    a worker: its queue, the thread that receives, its lane's batches, one core for all of them
``way``        a batch's way: known, asked, decided, as in ``worker.pipeline``, in time instead of in SQL
``answers``    what all workers share: stored answers, numbers in flight, the bill, the fewest look-ups
``outcome``    what became of it

Left out: failing calls, the gate, the budget, the breaker, suspects, the bound on batches that store and
tell what they bought, and a machine with fewer busy cores than workers. Postgres and the broker cost time,
and have no ceiling: docs/scale.md calculates theirs.
"""
