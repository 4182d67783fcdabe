"""Image files, read in the same way by the client and by the service, which imports this folder.

decoding.py   pixels: upright, scaled, in grey or in colour; scans of a JPEG, counted before it is decoded
files.py      names, kinds, sizes and limits; without Pillow
"""
