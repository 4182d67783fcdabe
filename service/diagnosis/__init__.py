"""Rules that recognize training failures from the metrics alone.

Rules use only the metrics of a few past epochs, because a job may move to another worker after any epoch. They ask for
three epochs in a row (two for a collapse or a diverging loss), and thresholds far from what successful trainings show:
a finding is some epochs late.
"""
