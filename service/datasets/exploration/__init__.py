"""What is in a dataset, for a person to look at: classes, examples, rows and columns.

explorer.py   what the web process asks, kept for the next time
choosing.py   which examples a page shows
columns.py    statistics of a table's columns
cells.py      values of a table as a person writes them
"""
