"""The ``presend`` command; one module a noun."""
