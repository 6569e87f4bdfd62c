//! The samples of this deployment: written to the log by whoever made the call, followed and held in every process.
//!
//! The log keeps a few per rule and kind (a later sample takes the place of an earlier one), and they are shown for a day.

use crate::error::RuleHostError;
use crate::try_on::RecentInput;
use parking_lot::RwLock;
use rustc_hash::{FxHashMap, FxHashSet};
use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;
use tillstream_log::{Headers, Log, LogError, NewRecord, TopicPartition};
use tillstream_runtime::Clock;
use tillstream_runtime::follow::{Followed, follow, partitions};
use tillstream_schemas::rule_sample::RuleSample;
use tillstream_schemas::{Text, Topic, codec};
use tillstream_stage::ids::derived_id;
use tillstream_stage::partition::partition_of;
use tillstream_stage::rule::Hook;
use tokio::sync::{mpsc, watch};

/// Samples of one rule and kind, at most.
const PLACES: usize = 32;
/// They are shown for so long.
const SHOWN: Duration = Duration::from_secs(24 * 3_600);
/// What cannot be followed now is tried again after so long.
const TRY_AGAIN: Duration = Duration::from_secs(1);
/// Samples that wait to be written, at most: what comes on top is not kept.
pub(crate) const WAITING_MAX: usize = 64;

/// A tenant's rule.
type Owner = (Text, Text);

/// The samples of every tenant.
pub struct RuleSamples {
    log: Arc<dyn Log>,
    clock: Arc<dyn Clock>,
    /// By rule, and by the key in the log.
    held: RwLock<FxHashMap<Owner, BTreeMap<Text, Arc<RuleSample>>>>,
}

impl RuleSamples {
    /// Holds none yet: run [`RuleSamples::run`].
    pub fn new(log: Arc<dyn Log>, clock: Arc<dyn Clock>) -> Arc<Self> {
        Arc::new(Self { log, clock, held: RwLock::default() })
    }

    /// The samples of a rule, newest first.
    pub fn of(&self, tenant: &str, rule: &str) -> Vec<Arc<RuleSample>> {
        let since_ms = self.since_ms();
        let held = self.held.read();
        let all = held.get(&(tenant.into(), rule.into())).into_iter().flat_map(BTreeMap::values);
        let mut found: Vec<_> = all.filter(|it| it.at_ms >= since_ms).cloned().collect();
        found.sort_by(|a, b| b.at_ms.cmp(&a.at_ms).then_with(|| a.id.cmp(&b.id)));
        found
    }

    /// What the tenant's rules were asked at a hook, newest first: each order once, whichever rule was asked about it.
    pub fn inputs(&self, tenant: &str, hook: Hook, most: usize) -> Vec<RecentInput> {
        let since_ms = self.since_ms();
        let held = self.held.read();
        let of_tenant = held.iter().filter(|(owner, _)| owner.0 == tenant).flat_map(|(_, it)| it.values());
        let is_wanted = |it: &&Arc<RuleSample>| it.at_ms >= since_ms && it.hook == hook.as_str();
        let mut found: Vec<_> = of_tenant.filter(is_wanted).cloned().collect();
        drop(held);
        found.sort_by(|a, b| b.at_ms.cmp(&a.at_ms).then_with(|| a.id.cmp(&b.id)));
        let mut orders = FxHashSet::default();
        found.retain(|it| orders.insert(it.order_id.clone()));
        let input = |it: Arc<RuleSample>| {
            let call = serde_json::from_str(&it.input).ok()?;
            Some(RecentInput { order_id: it.order_id.clone(), call })
        };
        found.into_iter().filter_map(input).take(most).collect()
    }

    fn since_ms(&self) -> i64 {
        self.clock.now_ms() - i64::try_from(SHOWN.as_millis()).unwrap_or(i64::MAX)
    }

    /// Writes what this process sampled, and follows what all did, until `shutdown`.
    ///
    /// # Errors
    /// What the log says and does not take back.
    pub async fn run(
        &self,
        mut sampled: mpsc::Receiver<RuleSample>,
        mut shutdown: watch::Receiver<bool>,
    ) -> Result<(), RuleHostError> {
        let all = partitions(&*self.log, Topic::RuleSamples);
        let write = async {
            while let Some(sample) = sampled.recv().await {
                if let Err(error) = self.write(&sample).await {
                    tracing::debug!(%error, "a sample of a rule is not kept");
                }
            }
            // Nobody samples any more; what others do is followed to the end.
            std::future::pending::<()>().await;
        };
        let follow = futures::future::join_all(all.into_iter().map(|it| self.follow(it)));
        tokio::select! {
            biased;
            _ = shutdown.wait_for(|it| *it) => Ok(()),
            () = write => Ok(()),
            _ = follow => Ok(()),
        }
    }

    async fn write(&self, sample: &RuleSample) -> Result<(), RuleHostError> {
        let value = codec::encode(sample).map_err(|error| RuleHostError::Sample(error.to_string()))?;
        let count = self.log.partitions(Topic::RuleSamples);
        let to = TopicPartition::new(Topic::RuleSamples, partition_of(sample.tenant.as_bytes(), count));
        let key = key(sample).to_string().into();
        let record = NewRecord { to, key, value: value.into(), headers: Headers::new() };
        self.log.append(vec![record]).await.map_err(|error| RuleHostError::Sample(error.to_string()))
    }

    /// Follows one partition for ever: samples are no reason to end a process.
    async fn follow(&self, partition: TopicPartition) {
        let mut offset = None;
        loop {
            if let Err(error) = self.follow_on(partition, &mut offset).await {
                tracing::debug!(%partition, %error, "samples of rules are followed again when the log answers");
                self.clock.sleep(TRY_AGAIN).await;
            }
        }
    }

    async fn follow_on(&self, partition: TopicPartition, offset: &mut Option<u64>) -> Result<(), LogError> {
        let from = match *offset {
            Some(from) => from,
            None => {
                self.log.refresh(&[partition]).await?;
                self.log.start_offset(partition)?
            }
        };
        *offset = Some(from);
        match follow(&*self.log, partition, from).await? {
            Followed::Gap(next) => *offset = Some(next),
            Followed::Records(records, next) => {
                records.iter().filter_map(|it| codec::decode(&it.value).ok()).for_each(|it| self.hold(it));
                *offset = Some(next);
            }
        }
        Ok(())
    }

    fn hold(&self, sample: RuleSample) {
        let since_ms = self.since_ms();
        if sample.at_ms < since_ms {
            return;
        }
        let mut held = self.held.write();
        let of_rule = held.entry((sample.tenant.clone(), sample.rule.clone())).or_default();
        of_rule.retain(|_, it| it.at_ms >= since_ms);
        of_rule.insert(key(&sample), Arc::new(sample));
    }
}

/// The place of a sample, which it takes from an earlier one: an order's samples of one hook share theirs.
fn key(sample: &RuleSample) -> Text {
    let hash = derived_id("plc_", &[&sample.order_id, &sample.hook]);
    let place = hash.bytes().fold(0_usize, |sum, it| (sum * 31 + usize::from(it)) % PLACES);
    format!("{}/{}/{}/{place}", sample.tenant, sample.rule, sample.kind.as_str()).into()
}
