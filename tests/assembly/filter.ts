// A filter on the AssemblyScript runtime for Proxy-Wasm: it writes its configuration into both heads, answers requests that ask for
// it in the API's place, and asks an API of its own before it lets those go on that ask for that.
export * from "@solo-io/proxy-runtime/proxy";
import {
  Context,
  FilterDataStatusValues,
  FilterHeadersStatusValues,
  FilterTrailersStatusValues,
  GrpcStatusValues,
  HeaderPair,
  RootContext,
  continue_request,
  registerRootContext,
  send_local_response,
  stream_context,
} from "@solo-io/proxy-runtime";

function pair(name: string, value: string): HeaderPair {
  return new HeaderPair(String.UTF8.encode(name), String.UTF8.encode(value));
}

class Root extends RootContext {
  createContext(context: u32): Context {
    return new Stamp(context, this);
  }
}

class Stamp extends Context {
  // Hosts are of two minds whether a filter is shown its own answer.
  replied: bool = false;

  constructor(context: u32, root: Root) {
    super(context, root);
  }

  onRequestHeaders(count: u32, end: bool): FilterHeadersStatusValues {
    const request = stream_context.headers.request;
    request.add("x-assembly", this.root_context.getConfiguration());
    const what = request.get("x-what");
    if (what == "reply") {
      this.replied = true;
      send_local_response(418, "teapot", String.UTF8.encode("short and stout\n"), [pair("x-pot", "tea")], GrpcStatusValues.Unknown);
      return FilterHeadersStatusValues.StopIteration;
    }
    if (what == "call") {
      const head = [pair(":method", "GET"), pair(":path", "/status/202"), pair(":authority", "api.example.com"), pair("x-by", "assembly")];
      this.root_context.httpCall("api", head, new ArrayBuffer(0), [], 5000, this, called);
      return FilterHeadersStatusValues.StopIteration;
    }
    request.remove("x-gone");
    request.replace("x-there", "replaced");
    return FilterHeadersStatusValues.Continue;
  }

  onResponseHeaders(count: u32, end: bool): FilterHeadersStatusValues {
    if (!this.replied) {
      stream_context.headers.response.add("x-assembly", this.root_context.getConfiguration());
    }
    return FilterHeadersStatusValues.Continue;
  }

  onResponseBody(size: usize, end: bool): FilterDataStatusValues {
    return FilterDataStatusValues.Continue;
  }

  onResponseTrailers(count: u32): FilterTrailersStatusValues {
    stream_context.trailers.response.add("x-assembly", "trailer");
    return FilterTrailersStatusValues.Continue;
  }
}

function called(context: Context, headers: u32, size: usize, trailers: u32): void {
  stream_context.headers.request.add("x-called", stream_context.headers.http_callback.get(":status"));
  continue_request();
}

registerRootContext((context: u32) => { return new Root(context); }, "shapes");
