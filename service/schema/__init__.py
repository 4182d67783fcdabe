"""The vocabulary of specs: layers, optimizers, the fields that kinds of jobs share, metrics and findings. It knows no
kind; each kind declares its spec with it.

Layers name their outputs only: the inputs follow from the layer before, so a number in the spec could only be wrong. A
layer that does not fit is a fault with its pointer; the shapes go on with the probable intention, to find further
faults. `flatten` and `reshape` are explicit, although they could be inferred. The engine has the same rules, and a test
compares both.

Layer numbers in a checkpoint are those of the spec: dropout has no weights and counts, so `layers.2.weight` belongs to
the third entry of `layers`, and numbers have gaps.
"""
