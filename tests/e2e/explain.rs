//! Explaining: what the API says would happen is what happens.

use serde_json::json;
use tidegate_tests::{
    World,
    api::{Api, Speaks},
    world::{POD, POD_PRINCIPAL, STRANGER, plain_service},
};

#[tokio::test]
async fn explanations_agree_with_what_happens() {
    let world = World::start().await;
    let api = Api::start(Speaks::Http1).await;
    for name in ["open", "shut", "quiet", "named"] {
        world.rest.register("services", name, &plain_service(&format!("{name}.example.com"), api.address)).await;
    }
    let rules = [
        ("open", json!({"action": "allow", "to": [{"services": ["open", "shut"], "methods": ["GET"], "paths": ["/v1/*"]}]})),
        ("shut", json!({"action": "deny", "to": [{"hosts": ["shut.example.com"]}]})),
        ("named", json!({"action": "allow", "from": [{"namespaces": ["shop"]}], "to": [{"services": ["named"]}]})),
        ("watch", json!({"action": "report", "to": [{"paths": ["/v1/*"]}]})),
    ];
    for (name, rule) in rules {
        world.rest.register("rules", name, &rule).await;
    }
    world.in_force().await;
    for host in ["open", "shut", "quiet", "named", "nobody"] {
        for path in ["/v1/charges", "/v2/charges", "/v1/../v2", "/%76%31/charges"] {
            for from in [POD, STRANGER] {
                let url = format!("http://{host}.example.com{path}");
                let question = json!({"from": {"address": from.to_string()}, "request": {"method": "GET", "url": url}});
                let explained = world.rest.explain(&question).await;
                let mut raw = tidegate_tests::Raw::connect_from(from, world.gateway.addresses.proxy).await;
                let reply = raw.get(&url, &format!("{host}.example.com"), "").await;
                let happened = if reply.reason().is_empty() { "allowed_by_rule" } else { reply.reason() };
                assert_eq!(explained["reason"], happened, "{url} from {from}: {explained}");
                let allowed = if reply.status == 200 { "allowed" } else { explained["verdict"].as_str().unwrap_or_default() };
                assert_eq!(explained["verdict"], allowed, "{url} from {from}: {explained}");
            }
        }
    }
    let question =
        json!({"from": {"principal": POD_PRINCIPAL}, "request": {"method": "GET", "url": "http://shut.example.com/v1/x"}});
    let explained = world.rest.explain(&question).await;
    assert_eq!((&explained["rule"], &explained["reports"]), (&json!("shut"), &json!(["watch"])), "{explained}");
}
