"""``presend demo``: a day of traffic through everything that is real, on engines of its own.

Only the provider is simulated, by the sandbox, over HTTP and with the documented latency.

===============  ==========================================================================
``population``   subscribers in real number ranges, the busy ones first
``failures``     why messages fail, and with which code
``blunders``     messages that become dead letters
``traffic``      a day's messages, the same for the same seed
``places``       the private folder, and the log that nobody needs to see
``child``        a presend command that ends with the demo, however that ends
``provider``     the sandbox in such a process: its bill, its order to port a number
``sending``      who sends the day, and who waits for answers
``events``       what came out, by type
``figures``      what Postgres, the event stream and the bill say
``accounts``     … and whether they agree
``waits``        what a shopper waited, and how much of it was the provider's
``screen``       all of it while it happens
``report``       … and at the end
``show``         the day as it is played
===============  ==========================================================================
"""
