"""Pictures of a training: sample grids and films by Pillow (``grids``, ``films``), plots by matplotlib (``plots``).

Import only the module that you need: ``grids`` loads in milliseconds, ``plots`` takes most of a second.
"""
