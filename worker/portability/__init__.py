"""Pure rules of number portability: no clock, no network, no SQL; ``now`` comes in by argument.

========================  ==================================================================
``msisdn``                how a mobile number is written, normalised and masked
``operators``             the operators, and every name they go by
``requests``              a check request: what a producer asked, and its key
``records``               what is known of a number, and a request with its decision
``failure_codes``         delivery-report codes of failed SMS, classed (``failure_codes.csv``)
``freshness``             when a stored record may answer
``decision``              the decision table
``letter_ids``            the ids under which items become dead letters
``events``                the CloudEvents that leave presend
``changes``               what a new answer changes in the stored record
========================  ==================================================================
"""
