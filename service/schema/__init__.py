"""The vocabulary of specs: layers, optimizers, the fields that kinds of jobs share, metrics and findings. It knows no
kind; each kind declares its spec with it."""
