"""Security headers of every response."""

from __future__ import annotations

from typing import Final

from flask import Flask, Response

_POLICY: Final = (
    "default-src 'none'; script-src 'self'; style-src 'self'; "
    "img-src 'self' data: blob:; connect-src 'self'; "
    "base-uri 'none'; form-action 'self'; frame-ancestors 'none'"
)
_SVG_POLICY: Final = "default-src 'none'; style-src 'unsafe-inline'; img-src data:; sandbox; frame-ancestors 'none'"
"""matplotlib's SVG files contain styles; opened as documents, they may run no script."""

_PICTURE_POLICY: Final = "default-src 'none'; style-src 'unsafe-inline'; img-src 'self'; frame-ancestors 'none'"
"""A browser that opens an image directly wraps it in a page with styles."""

_DATA_POLICY: Final = "default-src 'none'; frame-ancestors 'none'"
"""For all other data: if a browser renders it as a page, it can load and run nothing."""

_ALWAYS: Final = {
    "X-Content-Type-Options": "nosniff",
    "Referrer-Policy": "no-referrer",
    "X-Frame-Options": "DENY",
    "Cross-Origin-Opener-Policy": "same-origin",
    "Cross-Origin-Resource-Policy": "same-origin",
    "Permissions-Policy": "camera=(), microphone=(), geolocation=(), payment=(), usb=()",
}


def register(app: Flask) -> None:
    """Add the headers to every response, problems included."""

    @app.after_request
    def add(response: Response) -> Response:
        response.headers.update(_ALWAYS)
        media_type = response.mimetype or ""
        policies = {"text/html": _POLICY, "image/svg+xml": _SVG_POLICY}
        policy = policies.get(media_type, _PICTURE_POLICY if media_type.startswith("image/") else _DATA_POLICY)
        response.headers["Content-Security-Policy"] = policy
        response.headers.setdefault("Cache-Control", "no-store")
        return response
