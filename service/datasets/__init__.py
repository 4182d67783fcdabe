"""Datasets: the catalogue, imports, and the data as memory-mapped arrays.

Uploads are read in a sandbox, because a small file can demand terabytes or exploit a parser: an upload is streamed to
disk, and a process with 48 MB of additional memory, a minute of CPU time, no database and no key copies the pixels into
new arrays in chunks. It takes a third of a second.

Uploads are stored with the artifacts, since web and workers on other machines need them, and the folder of datasets may
be read-only. From a folder they are mapped; from a bucket, each machine copies them into its cache once, up to
`TAPELINE_CACHE_BYTES`. On a network drive, training reads the pixels over the network, once.
"""
