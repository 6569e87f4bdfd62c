//! Plugs backtests into the door's port: rules from the station, products from the catalog.

use super::ServeError;
use super::crew::Crew;
use super::house::House;
use super::rules::RuleParts;
use futures::future::BoxFuture;
use std::path::Path;
use std::sync::Arc;
use tillstream_ingest_api::ports;
use tillstream_rule_backtest::{
    BacktestError, Backtests, Ports, Pricer, Products, Rehearsals, Said, Side, Spec, View,
};
use tillstream_rule_host::{Rehearsal, Rehearse, RuleStation};
use tillstream_runtime::CatalogCache;
use tillstream_schemas::Text;
use tillstream_stage::facts::Catalog;
use tillstream_stage::rule::RuleCall;
use tokio::runtime::Handle;

/// Opens the backtests kept in `dir`.
pub fn open(house: &House, rules: &RuleParts, dir: &Path) -> Result<Arc<Backtests>, ServeError> {
    let ports = Ports {
        log: house.log.clone(),
        products: products(house),
        rehearsals: Arc::new(Station(rules.station())),
        clock: house.clock.clone(),
        on: Handle::current(),
    };
    Ok(Backtests::open(ports, dir)?)
}

/// Goes on with what ran when the process before this one ended; the rules are loaded by now.
pub fn go_on(crew: &Crew, backtests: &Arc<Backtests>) {
    let backtests = backtests.clone();
    crew.spawn(Box::pin(async move { backtests.go_on().await }));
}

/// The catalog of now.
pub(super) fn products(house: &House) -> Arc<dyn Products> {
    Arc::new(CatalogOfNow(house.catalog.clone()))
}

struct CatalogOfNow(Arc<CatalogCache>);

impl Products for CatalogOfNow {
    fn resolve<'a>(
        &'a self,
        wanted: &'a [(Text, Text)],
    ) -> BoxFuture<'a, Result<Box<dyn Catalog + Send + Sync>, String>> {
        Box::pin(async move {
            let snapshot = self.0.resolve(wanted).await.map_err(|error| error.to_string())?;
            Ok(Box::new(snapshot) as Box<dyn Catalog + Send + Sync>)
        })
    }
}

struct Station(Arc<RuleStation>);

struct Rehearsed(Rehearsal);

impl Pricer for Rehearsed {
    fn ask(&self, order_id: &str, call: &RuleCall) -> Said {
        let (verdict, run) = self.0.ask(order_id, call);
        Said { verdict, run }
    }
}

impl Rehearsals for Station {
    fn rehearse<'a>(
        &'a self,
        spec: &'a Spec,
        side: Side,
    ) -> BoxFuture<'a, Result<Box<dyn Pricer>, BacktestError>> {
        let (version, settings) = match side {
            Side::Candidate => (Some(spec.version), Some(spec.settings.as_str())),
            Side::Baseline => (spec.against, None),
        };
        let ask = Rehearse {
            tenant: &spec.tenant,
            rule: &spec.rule,
            version,
            settings,
            alone: spec.alone,
            hook: spec.hook,
        };
        Box::pin(async move {
            let rehearsal = self.0.rehearse(ask).await;
            let rehearsal = rehearsal.map_err(|error| BacktestError::Failed(error.to_string()))?;
            Ok(Box::new(Rehearsed(rehearsal.map_err(BacktestError::NotPossible)?)) as Box<dyn Pricer>)
        })
    }
}

/// The door's way to the backtests.
pub struct BacktestsDoor(pub Arc<Backtests>);

impl ports::Backtests for BacktestsDoor {
    fn begin(&self, spec: Spec) -> BoxFuture<'_, Result<View, BacktestError>> {
        Box::pin(async move { self.0.begin(spec).await })
    }

    fn resume<'a>(
        &'a self,
        tenant: &'a str,
        rule: &'a str,
        id: &'a str,
    ) -> BoxFuture<'a, Result<View, BacktestError>> {
        Box::pin(self.0.resume(tenant, rule, id))
    }

    fn cancel(&self, tenant: &str, rule: &str, id: &str) -> Result<View, BacktestError> {
        self.0.cancel(tenant, rule, id)
    }

    fn get(&self, tenant: &str, rule: &str, id: &str) -> Result<View, BacktestError> {
        self.0.get(tenant, rule, id)
    }

    fn list(&self, tenant: &str, rule: &str) -> Vec<View> {
        self.0.list(tenant, rule)
    }
}
