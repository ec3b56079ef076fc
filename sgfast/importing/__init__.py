"""Read cloud exports, the output of a cloud's CLI or API, as policies.

    files --sources--> plain values --format detected and read--> Draft --> document, Policy

``formats`` lists the formats. Each has a module of its name, which fills a draft. ``live_aws`` and ``live_openstack``
read accounts through their APIs, as sources.
"""
