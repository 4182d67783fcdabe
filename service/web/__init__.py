"""The REST API, the streams and the pages: a Flask app that stores jobs and shows what becomes of them."""
