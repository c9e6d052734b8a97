"""The operators' console: what presend does, what it costs, what is wrong, and the levers to act on it.

::

    running ──> console ──┬─> entering, overview, stops, work, dead, explaining, trail    over worker.web
                          └─> live, spending, watch    what they show

==============  ==========================================================================
``console``     the site: its parts, its routes and who may ask for each
``entering``    logging in and out; ``passwords`` are kept as scrypt hashes
``overview``    lanes, gate, spend and rates as of now
``stops``       the gate and the lanes, closed and opened, paused and resumed with a reason
``work``        calls, batches and what they decided; events
``dead``        dead letters: filtered, shown, priced, replayed under a cap
``explaining``  everything known of one number, on a time line
``trail``       who did what
``live``        one look at the running system, shared by all who look within a second
``spending``    what was bought today, and where that leads
``watch``       a thread that asks the broker and the provider, who may be slow
``running``     uvicorn, until a signal
==============  ==========================================================================
"""
