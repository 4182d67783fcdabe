"""Inference from checkpoints: the only package of the web process that loads the engine.

A digit should be classified while it is drawn, and a job queue is too slow for that. The engine is loaded on the first
request, with one BLAS thread; up to 256 MiB of networks are cached by artifact, whose files never change. A drawn digit
takes 5 ms (`conv`: 6), with a saliency map 6 to 8 ms, the first request for another checkpoint up to 15 ms. At most
four requests compute at a time, two of each owner; a large network occupies a core of the web process.

Latent walks follow great circles for normal noise: the straight line passes through a region that the generator never
saw. A client that interpolates by itself gets other images than `steps` does.
"""
