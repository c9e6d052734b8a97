"""What the queue may ask of presend; a task a module has, its rules live in ``worker``.

The worker's Strategy takes these tasks' messages in batches. Called as functions they decide in the
caller's own process: a pipeline of one.
"""
