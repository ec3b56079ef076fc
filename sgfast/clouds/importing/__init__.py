"""Read cloud exports, the output of a cloud's CLI or API, as policies.

    files --sources--> plain values --format detected and read--> Draft --> document, Policy

``formats`` lists the formats. Each provider has a module ``account``, which fills a draft. Its module ``live`` reads an
account through an API, as sources.
"""
