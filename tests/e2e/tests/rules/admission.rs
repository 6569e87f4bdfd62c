//! Between an upload and the first order: the dry run on recent inputs, and signatures.

use crate::caller::{Caller, demo};
use reqwest::StatusCode;
use serde_json::json;
use tillstream_e2e::{KEY, Server};
use tillstream_rule_modules::{harms_guests, off};

#[tokio::test]
async fn a_version_is_tried_on_the_tenants_recent_orders_before_it_answers_any() {
    let dir = tempfile::tempdir().unwrap();
    let server = Server::start(dir.path(), &[]).await;
    let merchant = demo(&server);
    merchant.stock("main", 1_000).await;
    let recent = merchant.upload("off", off(5)).await.json["recent"].clone();
    let nothing = json!({"hook": "price", "inputs": "none", "calls": 0, "failures": {},
        "fuel_p50": null, "fuel_max": null, "changed": 0});
    assert_eq!(recent["hooks"], json!([nothing]), "a tenant without an order has no inputs yet");
    for index in 0..3 {
        merchant.order(&format!("order-{index}"), 1).await;
    }

    let versions = "/v1/rules/broken/versions";
    let broken = merchant.upload("broken", harms_guests("", "unreachable")).await.json;
    let hook = &broken["recent"]["hooks"][0];
    assert_eq!((&hook["inputs"], &hook["calls"]), (&json!("log"), &json!(3)), "{broken:#}");
    assert_eq!(hook["failures"], json!({"trap": 3}));
    let activate = "/v1/rules/broken/activate";
    let refused = merchant.change(activate, &json!({"version": 1})).await;
    assert_eq!((refused.status, &refused.json["code"]), (StatusCode::CONFLICT, &json!("TS0668")));
    assert_eq!(merchant.get(versions).await.json["data"][0]["active"], false);
    let forced = merchant.change(activate, &json!({"version": 1, "forced": true})).await;
    assert_eq!(forced.json["active"]["version"], 1, "{}", forced.text);
    merchant.change("/v1/rules/broken/rollback", &json!({})).await;

    merchant.change("/v1/rules/off/activate", &json!({"version": 1})).await;
    merchant.order("sampled", 1).await;
    server.until("/v1/rules/off/samples", |it| !it["data"].as_array().unwrap().is_empty()).await;
    let other = merchant.upload("off", off(7)).await.json;
    let hook = &other["recent"]["hooks"][0];
    assert_eq!(
        (&hook["inputs"], &hook["calls"], &hook["changed"]),
        (&json!("samples"), &json!(1), &json!(1))
    );
    assert_eq!(other["recent"]["against"], 1);
    let versions = "/v1/rules/off/versions";
    let before = merchant.get(versions).await.json;
    server.kill();
    let server = Server::start(dir.path(), &[]).await;
    assert_eq!(demo(&server).get(versions).await.json, before, "a dry run is an event: it outlasts a crash");
    assert!(server.terminate().await.success());
}

fn tillstream(server: &Server, args: &[&str]) -> (bool, String) {
    let mut command = std::process::Command::new(tillstream_e2e::binary());
    let output = command
        .args(args)
        .env("TILLSTREAM_URL", server.url())
        .env("TILLSTREAM_API_KEY", KEY)
        .output()
        .unwrap();
    let text = [output.stdout, output.stderr].concat();
    (output.status.success(), String::from_utf8_lossy(&text).into_owned())
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_tenant_that_needs_signatures_takes_what_its_key_signed_and_nothing_else() {
    let dir = tempfile::tempdir().unwrap();
    let server = Server::start(dir.path(), &[]).await;
    let path = |name: &str| dir.path().join(name).to_str().unwrap().to_owned();
    let (key, module) = (path("key.pem"), path("off.wasm"));
    std::fs::write(&module, off(5)).unwrap();
    let ran = |args: &[&str]| {
        let (good, text) = tillstream(&server, args);
        assert!(good, "{args:?}: {text}");
        text
    };
    let refused = |args: &[&str], says: &str| {
        let (good, text) = tillstream(&server, args);
        assert!(!good && text.contains(says), "{args:?}: {text}");
    };
    let made = ran(&["rules", "keygen", "--key", &key]);
    let [id, public_key] = made.split_whitespace().collect::<Vec<_>>()[..] else { panic!("{made}") };
    refused(&["rules", "signing", "require"], "no signing key");
    ran(&["rules", "signing", "add", public_key, "--name", "ci"]);
    ran(&["rules", "signing", "require"]);
    refused(&["rules", "upload", "off", &module], "rules sign");
    ran(&["rules", "sign", &module, "--key", &key]);
    assert!(ran(&["rules", "upload", "off", &module]).contains(&format!("signed by {id}")));
    assert!(ran(&["rules", "versions", "off"]).contains(id));
    ran(&["rules", "activate", "off"]);

    // Built again: the signature beside it is of another module.
    std::fs::write(&module, off(6)).unwrap();
    refused(&["rules", "upload", "off", &module], "signed again");
    ran(&["rules", "signing", "revoke", id]);
    ran(&["rules", "sign", &module, "--key", &key]);
    refused(&["rules", "upload", "off", &module], "was revoked");
    refused(&["rules", "activate", "off"], "was revoked");
    let rule = demo(&server).get("/v1/rules/off").await.json;
    assert_eq!(rule["active"]["version"], 1, "what is active stays: {rule}");

    // A key that writes rules may not say whose signatures count.
    let author = server.post("/v1/keys", "k", &json!({"name": "author", "roles": ["rule-author"]})).await;
    let author = Caller { server: &server, key: author["key"].as_str().unwrap() };
    let body = json!({"name": "mine", "public_key": public_key});
    let forbidden = author.change("/v1/rule-signing/keys", &body).await;
    assert_eq!(forbidden.status, StatusCode::FORBIDDEN, "{}", forbidden.text);
    assert_eq!(author.get("/v1/rule-signing").await.json["required"], true);
    server.kill();
    let server = Server::start(dir.path(), &[]).await;
    let shown = demo(&server).get("/v1/rules/off/versions").await.json;
    assert_eq!(shown["data"][0]["signed_by"], id, "the event says who signed: {shown}");
    assert!(server.terminate().await.success());
}
