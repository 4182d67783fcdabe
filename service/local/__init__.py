"""The embedded stack: broker, web, worker and scheduler as children of one process, on one machine."""

from service.local.addresses import url_of
from service.local.errors import HomeInUse, PortTaken, StackError
from service.local.stack import LocalStack

__all__ = ["HomeInUse", "LocalStack", "PortTaken", "StackError", "url_of"]
