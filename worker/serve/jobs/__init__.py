"""Jobs: lists of up to a million numbers, looked up in the background for an account.

===========  =====================================================================
``lists``    a file or pasted text becomes rows: encoding, separator, column, what is wrong with a row
``runner``   asks for the parts of all jobs in turn, in slots of its own
``results``  a job's CSV, line by line
===========  =====================================================================

``worker.storage.jobs`` keeps them; ``worker.storage.job_work`` takes parts, and stores
and charges each in one transaction.
"""
