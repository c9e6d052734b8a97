"""Sending: what ``presend submit``, ``presend dead replay`` and the demo put into the lanes' queues.

``producer`` sends tasks as any producer may; ``request_files`` reads a CSV file, ``submission`` sends it
resumably; ``replay`` sends dead letters again.
"""
