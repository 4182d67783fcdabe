"""The methods of a client that send one request each. Written by `make client`."""

from tapeline.methods.administration import Administration
from tapeline.methods.datasets import Datasets
from tapeline.methods.service import Service
from tapeline.methods.sharing import Sharing
from tapeline.methods.webhooks import Webhooks


class GeneratedMethods(Administration, Datasets, Service, Sharing, Webhooks):
    """All of them."""
