"""Pictures of a training: grids and films by pillow (``grids``), curves and confusion by matplotlib (``plots``).

Import the module that you need: ``grids`` takes milliseconds, ``plots`` most of a second.
"""
