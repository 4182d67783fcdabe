"""What users give to be sent: images, folders of them, and rows of a table, in the form of a request."""
