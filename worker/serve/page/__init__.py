"""The query page: an account's look-ups, lists and statement in the browser, at ``/`` of ``presend serve``.

================  ==================================================
``site``          the site: its pages, and who may log in
``entering``      the log-in, by the account's key
``looking_up``    one number
``listing``       lists of numbers: upload, progress, result
``statement``     balance and movements
================  ==================================================

``worker.web`` is what it stands on; a result's words are in ``texts/`` too.
"""
