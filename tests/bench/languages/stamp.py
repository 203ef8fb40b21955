"""The half of the filter tests/filters/stamp that sees the request: one callback, three calls of the host."""

from wit_world import exports
from wit_world.imports import attributes
from wit_world.imports.types import Flow, HeaderOp_Set


class Handler(exports.Handler):
    def configure(self):
        pass

    def open(self, exchange, id, head, end):
        agent = head.get("user-agent")
        service = attributes.get("service")
        head.apply([HeaderOp_Set(("x-stamp", b"stamped" if agent or service else b"anonymous"))])
        return Flow.DONE

    def close(self, exchange):
        pass
