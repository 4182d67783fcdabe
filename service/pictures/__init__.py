"""Pictures of a training: sample grids and animations by Pillow, plots by matplotlib.

Import only the module that you need: ``grids`` loads in milliseconds, ``plots`` takes most of a second.

Images are preprocessed here, not on the page: page, terminal and client send drawings, and networks expect them centred
like MNIST digits. `reading` parses PNGs strictly, checks their size before decompression, and crops, scales and centres
on request (`fit`).
"""
