"""The provider's spellings; nothing outside this package knows them.

=================  =====================================================================
``spellings``      paths, parameter names and values both sides write
``codes``          the code table, and the error each code is
``asking``         the asker's side: requests out, answers in
``matching``       which item of a batch answer belongs to which number
``lenient_json``   JSON with the document's own trailing comma
``answering``      the provider's side: requests in, answers out, field for field as printed
=================  =====================================================================

Source: the provider's document. What it leaves open is decided in ``docs/provider-contract.md``.
"""
