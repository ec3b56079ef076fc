"""Clouds, languages and systems that have rules or logs: a folder for each. ``importing``, ``exporting`` and ``logs``
hold what they share.

    account or file -> PROVIDER/account.py -> importing/draft.py -> policy
    policy, or two -> exporting/delta.py -> PROVIDER/export.py -> script
    flow log -> PROVIDER/flow_log.py -> rows of logs/columns.py
"""
