// Keeps a header of each request until its response, as a filter does whose instance has several exchanges open at once.

const bytesOf = (text) => new TextEncoder().encode(text);

// By the number of the exchange.
const kept = new Map();

export const handler = {
  configure() {},

  open(exchange, id, head, end) {
    const team = head.get("x-team");
    kept.set(exchange, team);
    head.apply([{ tag: "set", val: ["x-checked", team] }]);
    return "proceed";
  },

  onRequestBody(exchange, head, body, end) {
    return "forward";
  },
  onRequestTrailers(exchange, head, body, trailers) {
    return "forward";
  },

  onResponseHeaders(exchange, status, head, end) {
    head.apply([
      { tag: "set", val: ["x-kept", kept.get(exchange)] },
      { tag: "set", val: ["x-open", bytesOf(String(kept.size))] },
    ]);
    return "proceed";
  },

  onResponseBody(exchange, head, body, end) {
    return "forward";
  },
  onResponseTrailers(exchange, head, body, trailers) {
    return "forward";
  },

  close(exchange) {
    kept.delete(exchange);
  },
};
