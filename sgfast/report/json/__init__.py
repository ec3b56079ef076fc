"""Answers of commands with ``--format json``: a module for each has the types of its objects, and what fills them.

A field is one line in a type (``sgfast.json_types``); the JSON and its published schema come from there.
"""
