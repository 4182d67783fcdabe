"""Image files, read in the same way by imports and by the programs that send them.

decoding.py    pixels: upright, scaled, in grey or in colour
kinds.py       formats that are not read
levels.py      levels of 16 bits, scaled to 8
sizes.py       sizes that images are scaled to
"""
