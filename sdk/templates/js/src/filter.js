// Callers must send a header, of these values where there is a list of them; the request that goes on bears a stamp, and one audit
// event says who was let through and who was not.

import { emit } from "tidegate:filter/audit@0.1.0";
import { config } from "tidegate:filter/host@0.1.0";
import { answer } from "tidegate:filter/message@0.1.0";
import { readSettings } from "./settings.js";

const bytesOf = (text) => new TextEncoder().encode(text);
const textOf = (bytes) => new TextDecoder().decode(bytes);

// What the route says. An instance of the filter serves many exchanges, all with these.
let settings;

// The functions that the gateway calls: `interface handler` in wit/filter.wit.
export const handler = {
  // Called once, before any exchange. What is thrown here refuses the route, and is shown to the operator who wrote it.
  configure() {
    settings = readSettings(textOf(config()));
  },

  // A request has come; `exchange` is its number among those that are open, and the answer is what becomes of it. After "done"
  // nothing more of it is shown to this filter.
  open(exchange, id, head, end) {
    const bytes = head.get(settings.header);
    const sent = bytes ? textOf(bytes) : "";
    if (!bytes) {
      return refuse(`the header ${settings.header} is missing`, sent);
    }
    if (settings.values.length > 0 && !settings.values.includes(sent)) {
      return refuse(`the header ${settings.header} has a value that is not listed`, sent);
    }
    try {
      head.apply([{ tag: "set", val: [settings.stamp, bytesOf("{{name}}")] }]);
    } catch (error) {
      // The gateway refuses what could mislead the API, such as a header of its own; then it is better not to go on.
      return refuse(`${settings.stamp} could not be set: ${error.payload ?? error}`, sent);
    }
    remember("allowed", sent);
    return "done";
  },

  // The other callbacks, for filters that answer `open` with more than "done": see wit/filter.wit for when each is called.
  onRequestBody(exchange, head, body, end) {
    return "forward";
  },
  onRequestTrailers(exchange, head, body, trailers) {
    return "forward";
  },
  onResponseHeaders(exchange, status, head, end) {
    return "proceed";
  },
  onResponseBody(exchange, head, body, end) {
    return "forward";
  },
  onResponseTrailers(exchange, head, body, trailers) {
    return "forward";
  },

  // The exchange has ended, and its number is free. Not called after "done".
  close(exchange) {},
};

// Answers the caller in the API's place. From 400 on, the record says that the filter denied it, and why (`details`).
function refuse(why, sent) {
  remember("denied", sent);
  const headers = [["content-type", bytesOf("text/plain")]];
  answer({ status: 403, headers, body: bytesOf(`${why}\n`), grpcStatus: undefined, details: why });
  return "reply";
}

// Leaves the one audit event. The gateway itself fills in who called: `principal`, from its attribute `caller.principal`.
function remember(outcome, sent) {
  emit("{{name}}", outcome, [["principal", "caller.principal"]], [["value", { tag: "text", val: sent }]]);
}
