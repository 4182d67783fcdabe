"""Specs: their schema, presets, validation, layer shapes and costs.

Objects of a spec merge with the preset's field by field, unless `name` selects another variant: `{"optimizer":
{"learning_rate": 0.1}}` keeps the other fields. Lists are replaced.

The hash of a spec says whether two jobs compute the same. It covers every field of the resolved spec, whether sent,
from the preset or a default, except `NOT_HASHED`. With a new field, the hash of every spec changes, so results of an
earlier version are not reused.
"""
