"""The Flask app: REST API, event streams and pages.

HTML comes from the server, updates from the browser, so that a running page keeps zoom and scroll position. Templates
render every text and table; small modules draw curves, tiles, samples and rows of the list from events, always with
`textContent`, and fetch what no event has when it has changed and is in view. No build step, no framework. The rows of
the list exist in the browser only.
"""
