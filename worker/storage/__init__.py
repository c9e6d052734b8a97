"""Postgres: every query of presend, a module a noun.

==================  =====================================================================
``store``           what the pipeline asks of the database: the seam
``postgres_store``  the transactions behind it
``schema``          the tables
``engine``          connections, time-outs, and transactions that are run again
``migrations``      brings a database to this release's schema
``port_records``    the stored port status of a number, and its observed changes
``ledger``          one row a request with its decision
``calls``           provider calls and the numbers they have in flight
``outbox``          batches whose events may still have to be sent
``presence``        which processes that buy are alive
``breaker``         a lane whose provider fails, and who may try it next
``budget``          what may be bought a day
``gate``            closed for every worker at once while the account cannot buy
``dead_letters``    items that could not be taken, with the reason
``arrays``          how the columns of a batch are written for Postgres
==================  =====================================================================

Functions take a connection and never commit; who opened the transaction ends it.
Arrays go in by ``unnest`` and are sorted by key, so that two batches cannot deadlock.
"""
