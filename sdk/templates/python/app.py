"""Callers must send a header, of these values where there is a list of them; the request that goes on bears a stamp, and one audit
event says who was let through and who was not."""

from componentize_py_types import Err
from wit_world import exports
from wit_world.imports import audit, host, message
from wit_world.imports.types import Attr_Text, BodyFlow, Flow, HeaderError, HeaderOp_Set, LocalReply, TrailerFlow

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

    def open(self, exchange, id, head, end):
        """A request has come; `exchange` is its number among those that are open, and the answer is what becomes of it. After DONE
        nothing more of it is shown to this filter."""
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
        return Flow.DONE

    # The other callbacks, for filters that answer `open` with more than DONE: see wit/filter.wit for when each is called.

    def on_request_body(self, exchange, head, body, end):
        return BodyFlow.FORWARD

    def on_request_trailers(self, exchange, head, body, trailers):
        return TrailerFlow.FORWARD

    def on_response_headers(self, exchange, status, head, end):
        return Flow.PROCEED

    def on_response_body(self, exchange, head, body, end):
        return BodyFlow.FORWARD

    def on_response_trailers(self, exchange, head, body, trailers):
        return TrailerFlow.FORWARD

    def close(self, exchange):
        """The exchange has ended, and its number is free. Not called after DONE."""


def refuse(why, sent):
    """Answers the caller in the API's place. From 400 on, the record says that the filter denied it, and why (`details`)."""
    remember(audit.Outcome.DENIED, sent)
    message.answer(LocalReply(403, [("content-type", b"text/plain")], f"{why}\n".encode(), None, why))
    return Flow.REPLY


def remember(outcome, sent):
    """Leaves the one audit event. The gateway itself fills in who called: `principal`, from its attribute `caller.principal`."""
    audit.emit("{{name}}", outcome, [("principal", "caller.principal")], [("value", Attr_Text(sent))])
