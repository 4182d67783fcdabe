"""The way for databases at revisions 0007 to 0013, whose chain was replaced by the one that begins with 0014."""
