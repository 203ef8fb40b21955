// The authority, framing and hop-by-hop fields (RFC 9110 sections 7.2, 7.6.1 and 8.6), and what loops are found by, and the
// gateway's own word to its callers: filters read these and never write them, so that what was decided and framed is what is sent. Part of the contract, and included
// by both of its sides: the gateway and the SDK's test driver.
[
    "connection",
    "content-length",
    "expect",
    "host",
    "http2-settings",
    "keep-alive",
    "proxy-authenticate",
    "proxy-connection",
    "te",
    "trailer",
    "transfer-encoding",
    "upgrade",
    "via",
    "x-tidegate-reason",
]
