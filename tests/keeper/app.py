"""Keeps a header of each request until its response, as a filter does whose instance has several exchanges open at once."""

from wit_world import exports
from wit_world.imports.types import BodyFlow, Flow, HeaderOp_Set, TrailerFlow

# By the number of the exchange.
kept = {}


class Handler(exports.Handler):
    def configure(self):
        pass

    def open(self, exchange, id, head, end):
        kept[exchange] = head.get("x-team")
        head.apply([HeaderOp_Set(("x-checked", kept[exchange]))])
        return Flow.PROCEED

    def on_request_body(self, exchange, head, body, end):
        return BodyFlow.FORWARD

    def on_request_trailers(self, exchange, head, body, trailers):
        return TrailerFlow.FORWARD

    def on_response_headers(self, exchange, status, head, end):
        head.apply([HeaderOp_Set(("x-kept", kept[exchange])), HeaderOp_Set(("x-open", str(len(kept)).encode()))])
        return Flow.PROCEED

    def on_response_body(self, exchange, head, body, end):
        return BodyFlow.FORWARD

    def on_response_trailers(self, exchange, head, body, trailers):
        return TrailerFlow.FORWARD

    def close(self, exchange):
        del kept[exchange]
