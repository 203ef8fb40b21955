"""Callers must send a header, of these values where there is a list of them; the request that goes on bears a stamp, and one audit
event says who was let through and who was not."""

from componentize_py_types import Err
from wit_world import exports
from wit_world.imports import audit, host
from wit_world.imports.types import (
    Attr_Text,
    BodyFlow_Forward,
    Flow_Proceed,
    Flow_Reply,
    HeaderError,
    HeaderOp_Set,
    LocalReply,
    TrailerFlow_Forward,
)

from settings import Mistake, Settings


class Handler(exports.Handler):
    """The functions that the gateway calls: `interface handler` in wit/filter.wit. One handler serves many exchanges."""

    settings: Settings

    def configure(self):
        """Called once, before any exchange. The error refuses the route, and is shown to the operator who wrote it."""
        try:
            Handler.settings = Settings.read(host.config())
        except Mistake as mistake:
            raise Err(str(mistake))

    def open(self, id, head, end):
        """A request has come. The answer is a pair: the exchange, or None where nothing more of it is to be shown to this filter;
        and what becomes of the request."""
        settings = self.settings
        value = head.get(settings.header)
        sent = "" if value is None else value.decode(errors="replace")
        if value is None:
            return refuse(f"the header {settings.header} is missing", sent)
        if settings.values and sent not in settings.values:
            return refuse(f"the header {settings.header} has a value that is not listed", sent)
        try:
            head.apply([HeaderOp_Set((settings.stamp, b"{{name}}"))])
        except Err as error:
            # The gateway refuses what could mislead the API, such as a header of its own; then it is better not to go on.
            return refuse(f"{settings.stamp} could not be set: {HeaderError(error.value).name}", sent)
        remember(audit.Outcome.ALLOWED, sent)
        return None, Flow_Proceed()

    def close(self, exchange):
        """The exchange has ended. It comes only for an exchange that `open` has given."""


class Exchange(exports.handler.Exchange):
    """The other callbacks, for filters whose `open` answers `Exchange(), …`: see wit/filter.wit for when each is called. Such a filter
    needs `"isolation": "exchange"` on its route, for its toolchain never gives an exchange's handle back (README.md)."""

    def on_request_body(self, head, body, end):
        return BodyFlow_Forward()

    def on_request_trailers(self, head, body, trailers):
        return TrailerFlow_Forward()

    def on_response_headers(self, status, head, end):
        return Flow_Proceed()

    def on_response_body(self, head, body, end):
        return BodyFlow_Forward()

    def on_response_trailers(self, head, body, trailers):
        return TrailerFlow_Forward()


def refuse(why, sent):
    """Answers the caller in the API's place. From 400 on, the record says that the filter denied it, and why (`details`)."""
    remember(audit.Outcome.DENIED, sent)
    return None, Flow_Reply(LocalReply(403, [("content-type", b"text/plain")], f"{why}\n".encode(), None, why))


def remember(outcome, sent):
    """Leaves the one audit event. The gateway itself fills in who called: `principal`, from its attribute `caller.principal`."""
    audit.emit("{{name}}", outcome, [("principal", "caller.principal")], [("value", Attr_Text(sent))])
