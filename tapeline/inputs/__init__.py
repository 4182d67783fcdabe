"""Users' inputs in the form of a request: images, folders of images, and rows of a table."""
