//! Backtests at the door, over a desk that runs nothing.

use crate::harness::Api;
use crate::rules::{post, upload};
use futures::future::BoxFuture;
use parking_lot::Mutex;
use serde_json::json;
use tillstream_ingest_api::ports;
use tillstream_rule_backtest::{BacktestError, Report, Spec, Status, View};

/// Backtests that are only written down: each runs until it is cancelled.
#[derive(Default)]
pub struct Desk(Mutex<Vec<View>>);

impl Desk {
    fn set(&self, tenant: &str, rule: &str, id: &str, status: Option<Status>) -> Result<View, BacktestError> {
        let mut kept = self.0.lock();
        let is_it = |it: &&mut View| it.spec.tenant == tenant && it.spec.rule == rule && it.spec.id == id;
        let found = kept.iter_mut().find(is_it).ok_or_else(|| BacktestError::Unknown(id.to_owned()))?;
        found.status = status.unwrap_or(found.status);
        Ok(found.clone())
    }
}

impl ports::Backtests for Desk {
    fn begin(&self, spec: Spec) -> BoxFuture<'_, Result<View, BacktestError>> {
        let mut kept = self.0.lock();
        let is_busy = |it: &View| it.spec.tenant == spec.tenant && it.status == Status::Running;
        let result = match kept.iter().find(|it| is_busy(it)) {
            Some(other) => {
                Err(BacktestError::TooMany(format!("the backtest {} runs already", other.spec.id)))
            }
            None => {
                let (status, report) = (Status::Running, Report::default());
                let view = View {
                    spec,
                    status,
                    error: None,
                    progress: 0.0,
                    worked_ms: 0,
                    ended_at_ms: None,
                    report,
                };
                kept.push(view.clone());
                Ok(view)
            }
        };
        Box::pin(std::future::ready(result))
    }

    fn resume<'a>(
        &'a self,
        tenant: &'a str,
        rule: &'a str,
        id: &'a str,
    ) -> BoxFuture<'a, Result<View, BacktestError>> {
        Box::pin(std::future::ready(self.set(tenant, rule, id, Some(Status::Running))))
    }

    fn cancel(&self, tenant: &str, rule: &str, id: &str) -> Result<View, BacktestError> {
        self.set(tenant, rule, id, Some(Status::Cancelled))
    }

    fn get(&self, tenant: &str, rule: &str, id: &str) -> Result<View, BacktestError> {
        self.set(tenant, rule, id, None)
    }

    fn list(&self, tenant: &str, rule: &str) -> Vec<View> {
        let kept = self.0.lock();
        kept.iter().filter(|it| it.spec.tenant == tenant && it.spec.rule == rule).cloned().collect()
    }
}

#[tokio::test]
async fn a_backtest_begins_with_the_newest_version_and_can_be_read_stopped_and_gone_on_with() {
    let api = Api::start().await;
    upload(&api, "volume", "one").await;
    upload(&api, "volume", "two").await;
    let asked = json!({"from": "2026-11-01T00:00:00Z", "settings": {"from_quantity": 3}});
    let begun = post(&api, "/v1/rules/volume/backtests", &asked).await;
    assert_eq!(begun.status.as_u16(), 202, "{}", begun.text);
    let path = begun.header("location").to_owned();
    let id = begun.json()["id"].as_str().unwrap().to_owned();
    assert_eq!(path, format!("/v1/rules/volume/backtests/{id}"));
    let shown = api.get(&path).await.json();
    assert_eq!((&shown["version"], &shown["status"]), (&json!(2), &json!("running")));
    assert_eq!((&shown["from"], &shown["to"]), (&json!("2026-11-01T00:00:00Z"), &json!(null)));
    assert_eq!(shown["settings"], json!({"from_quantity": 3}));
    let busy = post(&api, "/v1/rules/volume/backtests", &json!({})).await;
    assert_eq!(busy.problem(), (409, "TS0665".to_owned()));
    assert!(busy.text.contains(&id), "it says which: {}", busy.text);
    assert_eq!(post(&api, &format!("{path}/cancel"), &json!({})).await.json()["status"], "cancelled");
    assert_eq!(post(&api, &format!("{path}/resume"), &json!({})).await.json()["status"], "running");
    assert_eq!(api.get("/v1/rules/volume/backtests").await.json()["data"].as_array().unwrap().len(), 1);
}

#[tokio::test]
async fn a_backtest_that_cannot_be_is_refused_with_the_field_that_is_wrong() {
    let api = Api::start().await;
    upload(&api, "volume", "one").await;
    let path = "/v1/rules/volume/backtests";
    for (body, named) in [
        (json!({"from": "yesterday"}), "from"),
        (json!({"from": "2026-11-02T00:00:00Z", "to": "2026-11-01T00:00:00Z"}), "to"),
        (json!({"version": 0}), "version"),
        (json!({"orders_per_second": 0}), "orders_per_second"),
        (json!({"alone": "yes"}), "alone"),
        (json!({"unknown": 1}), "unknown"),
    ] {
        let answer = post(&api, path, &body).await;
        assert_eq!(answer.status.as_u16(), 400, "{body}: {}", answer.text);
        assert!(answer.json()["errors"][0]["field"].as_str().unwrap().contains(named), "{}", answer.text);
    }
    assert_eq!(post(&api, "/v1/rules/other/backtests", &json!({})).await.status.as_u16(), 404);
    for id in ["bt_000000000000000000000", "nothing"] {
        assert_eq!(api.get(&format!("{path}/{id}")).await.status.as_u16(), 404);
        assert_eq!(post(&api, &format!("{path}/{id}/cancel"), &json!({})).await.status.as_u16(), 404);
    }
}

#[tokio::test]
async fn a_backtests_settings_are_held_against_the_schema_of_its_version() {
    let api = Api::start().await;
    let schema = json!({"required": ["from"], "properties": {"from": {"type": "integer"}}});
    for digest in ["one".to_owned(), format!("schema:{schema}")] {
        upload(&api, "volume", &digest).await;
    }
    let path = "/v1/rules/volume/backtests";
    for (settings, field) in [(json!({"from": "five"}), "settings.from"), (json!({}), "settings")] {
        let refused = post(&api, path, &json!({"settings": settings})).await;
        assert_eq!(refused.problem(), (400, "TS0607".to_owned()), "{}", refused.text);
        assert_eq!(refused.json()["errors"][0]["field"], field);
    }
    let left_out = post(&api, path, &json!({})).await;
    assert_eq!(
        left_out.status, 400,
        "the settings of the active version do not fit either: {}",
        left_out.text
    );
    let any = post(&api, path, &json!({"version": 1, "settings": {"anything": "goes"}})).await;
    assert_eq!(any.status, 202, "{}", any.text);
    let id = any.json()["id"].as_str().unwrap().to_owned();
    post(&api, &format!("{path}/{id}/cancel"), &json!({})).await;
    assert_eq!(post(&api, path, &json!({"settings": {"from": 5}})).await.status, 202);
}

#[tokio::test]
async fn a_backtest_says_which_hook_it_asks_and_what_it_compares_with() {
    let api = Api::start().await;
    for digest in ["one", "two"] {
        upload(&api, "volume", digest).await;
    }
    let path = "/v1/rules/volume/backtests";
    for (body, hook, with) in [
        (json!({}), "price", "history"),
        (json!({"hook": "measure"}), "measure", "history"),
        (json!({"hook": "risk"}), "risk", "active"),
        (json!({"hook": "allocate", "against": 1}), "allocate", "version"),
    ] {
        let begun = post(&api, path, &body).await.json();
        assert_eq!((&begun["hook"], &begun["compared_with"]), (&json!(hook), &json!(with)), "{begun}");
        post(&api, &format!("{path}/{}/cancel", begun["id"].as_str().unwrap()), &json!({})).await;
    }
    assert_eq!(post(&api, path, &json!({"hook": "dance"})).await.status, 400);
}
