"""The parts of pages that GANs bring with them."""

from __future__ import annotations

from typing import Final

from service.web.http.job_pages import PageOfKind

PAGE: Final = PageOfKind(
    curves_term="gan",
    samples_term="latent-space",
    play_link="Explore the latent space",
    play_title="Latent space",
    play_script="play/latent.js",
    play="gan/latent.html",
)
