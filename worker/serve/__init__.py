"""The front door: the provider's own contract, answered by presend. Lane ``direct``.

::

    running ──┬─> worker.carrier.server ──> front_door ──┬─> desk ──> worker.storage.holds
              │                                 ▲        └─> direct_lane ──> worker.lane, worker.pipeline
              └─> page ─────────────────────────┴─> jobs ──────┘

===============  =========================================================================
``front_door``   one call: reserve, ask, charge, answer; past its deadline -8 and no charge
``desk``         the callers' accounts: calls that come together share a transaction
``direct_lane``  callers' numbers gathered into provider calls; nobody's thread waits
``jobs``         lists of up to a million numbers, looked up in the background
``page``         the query page in the browser
``running``      uvicorn, http and https at once
===============  =========================================================================
"""
