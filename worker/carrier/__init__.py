"""The provider's HTTP contract, in both directions.

``protocol`` is the seam; ``wire`` knows the provider's spellings and nothing else does;
``client`` asks a provider over HTTP; ``server`` answers as one, over any ``CarrierLookup``.
"""
