"""Answers of commands with ``--format json``. A module for each has the types of its objects, and fills them.

A field is one line in a type (``sgfast.base.json_types``), from which the JSON and its published schema are made.
"""
