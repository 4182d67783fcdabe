"""Reverse-mode differentiation of NumPy programs: tensors, the tape, primitives."""
