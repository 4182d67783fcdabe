"""Image files, read alike by the import and by those who send them.

decoding.py    pixels: upright, scaled, in grey or in colour
kinds.py       formats that are not read
sizes.py       sizes that images are scaled to
"""
