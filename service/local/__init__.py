"""The embedded stack: broker, web, worker and scheduler as children of one process, on one machine."""

from service.local.stack import HomeInUse, LocalStack, PortTaken, StackError

__all__ = ["HomeInUse", "LocalStack", "PortTaken", "StackError"]
