"""The measurement that ``presend bench`` makes: how fast this machine drains a queue, and answers a shopper.

On engines of its own, with the simulated provider beside it on the same cores. The comparison with other
Celery apps, over RabbitMQ, is ``make bench`` in the source.
"""
