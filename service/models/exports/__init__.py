"""Exports of trained models to the formats of other programs: one module per format, selected by ``creation``.

The web process makes one export of each owner at a time, and the file is an artifact; a large one takes a core for a
second. Runs of MLflow are logged by the client: the service never connects anywhere.
"""
