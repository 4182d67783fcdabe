"""Skip this folder at first reading: NumPy's other functions on a tape, so that code written for NumPy has gradients.

No network of the engine needs them. ``numpy_functions`` maps NumPy's names to primitives, or to the functions of the
other modules.
"""
