"""Jobs: their endpoints, pages, streams, files and plots."""
