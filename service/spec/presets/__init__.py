"""Named starting points, and how they adapt to data of another shape."""
