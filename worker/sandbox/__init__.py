"""The simulated provider, shipped: ``presend sandbox``, and the provider of every test.

::

    serving ──> control ──> unruly ──> worker.carrier.server ──> provider ──> subscribers
                   └───────────┴──> faults                          └──> bill

=================  =======================================================================
``provider``       ``Sandbox``: accounts that pay, ports at a set time, latency as documented
``subscribers``    who serves which number: a pure function, the truth of every test
``bill``           what was sold, call by call and number by number
``faults``         what may go wrong on order, while it runs
``unruly``         the faults of the wire, down to a TCP reset
``control``        the ASGI application: contract, faults and the control API
``serving``        uvicorn: ``run`` in the foreground, ``serving`` in a test's thread
=================  =======================================================================

Documented for its users in ``docs/sandbox.md``.
"""
