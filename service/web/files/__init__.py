"""Files over HTTP: uploads, downloads, and pictures made on request."""
