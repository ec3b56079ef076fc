"""Flow logs: ``sources`` finds them, ``formats`` reads each, ``merged`` reads many as one by time.

As traffic: ``traffic`` turns records into the packets of connections, with ``connections`` and ``openers``, and
``log_records`` says what became of the records. ``checking`` compares logs with actions with a policy, with ``judging``
and ``conversations``.
"""
