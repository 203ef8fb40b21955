// The half of the filter tests/filters/stamp that sees the request: one callback, three calls of the host. The other half would need
// an instance for each exchange (docs/filters-in-other-languages.md says why).

import { get } from "tidegate:filter/attributes@0.1.0";

const stamped = new TextEncoder().encode("stamped");
const anonymous = new TextEncoder().encode("anonymous");

export const handler = {
  Exchange: class {},
  configure() {},
  open(id, head, end) {
    const agent = head.get("user-agent");
    const service = get("service");
    head.apply([{ tag: "set", val: ["x-stamp", agent || service ? stamped : anonymous] }]);
    return [null, { tag: "proceed" }];
  },
  close(exchange) {},
};
