"""Flow logs of every supported format as arrays with the same columns.

``columns`` has the columns, ``detection`` finds the format from a file's content, and ``log`` is a log while it is
read. Every format is a module of its provider.
"""
