"""Exploration of datasets: classes, examples, rows, and statistics of columns.

explorer.py   the interface for the web process, with a cache
selection.py  selects the examples of a page
columns.py    statistics of a table's columns
cells.py      formats the values of a table
"""
