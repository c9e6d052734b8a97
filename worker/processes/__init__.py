"""The processes of ``presend worker``.

``role`` is one of them: the consumer of a lane, or upkeep; ``supervisor`` keeps them running; ``preflight``
looks before they start whether what they need is there.
"""
