"""Image files, read in the same way by imports and by the programs that send them.

bit_depth.py   levels of 16 bits, scaled to 8
decoding.py    pixels: upright, scaled, in grey or in colour
kinds.py       formats that are not read
sizes.py       sizes that images are scaled to
"""
