"""Headers that every answer carries: what a browser may do with it."""

from __future__ import annotations

from typing import Final

from flask import Flask, Response

_POLICY: Final = (
    "default-src 'none'; script-src 'self'; style-src 'self'; "
    "img-src 'self' data: blob:; connect-src 'self'; "
    "base-uri 'none'; form-action 'self'; frame-ancestors 'none'"
)
_PICTURE_POLICY: Final = (
    "default-src 'none'; style-src 'unsafe-inline'; img-src 'self' data:; sandbox; frame-ancestors 'none'"
)
"""Plots in SVG contain styles, and a browser styles any picture that is opened by itself. Neither runs a script."""

_DATA_POLICY: Final = "default-src 'none'; frame-ancestors 'none'"
"""For what is no page: taken for one all the same, it may do nothing."""

_ALWAYS: Final = {
    "X-Content-Type-Options": "nosniff",
    "Referrer-Policy": "no-referrer",
    "X-Frame-Options": "DENY",
    "Cross-Origin-Opener-Policy": "same-origin",
    "Cross-Origin-Resource-Policy": "same-origin",
    "Permissions-Policy": "camera=(), microphone=(), geolocation=(), payment=(), usb=()",
}


def register(app: Flask) -> None:
    """Add the headers to every answer, problems included."""

    @app.after_request
    def add(response: Response) -> Response:
        response.headers.update(_ALWAYS)
        media = response.mimetype or ""
        policy = _PICTURE_POLICY if media.startswith("image/") else _POLICY if media == "text/html" else _DATA_POLICY
        response.headers["Content-Security-Policy"] = policy
        response.headers.setdefault("Cache-Control", "no-store")
        return response
