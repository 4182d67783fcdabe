"""Pictures of a training: sample grids and animations by Pillow, plots by matplotlib.

Import only the module that you need: ``grids`` loads in milliseconds, ``plots`` takes most of a second.
"""
