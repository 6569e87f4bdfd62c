//! Who uses the keyspace, its nodes, and how it is emptied.

use crate::{ScyllaStore, error};
use scylla::client::session::Session;
use scylla::cluster::Node;
use scylla::policies::load_balancing::{NodeIdentifier, SingleTargetLoadBalancingPolicy};
use scylla::response::query_result::QueryRowsResult;
use std::collections::BTreeMap;
use tillstream_log::LogError;
use tillstream_schemas::Text;
use tillstream_state::row_store::Deployment;

type Found = (Text, Text, i32, i32, bool);

impl ScyllaStore {
    pub(crate) async fn read_deployment(&self) -> Result<Option<Deployment>, LogError> {
        let doing = "reading who uses the keyspace";
        let found = self.fetch(doing, &self.statements.deployment, &(), deployments).await?;
        let Some((name, cluster_id, partitions, buckets, rebuilding)) = found.into_iter().next() else {
            return Ok(None);
        };
        let count = |it: i32| u32::try_from(it).map_err(|it| error::unreadable(doing, it));
        let (partitions, buckets) = (count(partitions)?, count(buckets)?);
        Ok(Some(Deployment { name, cluster_id, partitions, buckets, rebuilding }))
    }

    pub(crate) async fn claim_for(&self, deployment: Deployment) -> Result<Deployment, LogError> {
        let doing = "claiming the keyspace";
        let Deployment { name, cluster_id, partitions, buckets, rebuilding } = deployment;
        let count = |it: u32| i32::try_from(it).map_err(|it| error::unreadable(doing, it));
        let (partitions, buckets) = (count(partitions)?, count(buckets)?);
        let values = (name.as_str(), cluster_id.as_str(), partitions, buckets, rebuilding);
        self.put(doing, &self.statements.claim, values).await?;
        let winner = self.read_deployment().await?;
        winner.ok_or_else(|| error::unreadable(doing, "the row that was written is not there"))
    }

    pub(crate) async fn note_rebuilding(&self, rebuilding: bool) -> Result<(), LogError> {
        let doing = "noting a rebuild";
        let done = self.run(doing, &self.statements.rebuilding, &(rebuilding,)).await?;
        // An update of what is there answers `[applied]` alone.
        let rows = done.into_rows_result().map_err(|it| error::unreadable(doing, it))?;
        let applied = applied(&rows).map_err(|it| error::unreadable(doing, it))?;
        match applied {
            true => Ok(()),
            false => {
                Err(LogError::Stopped("TS0356: nobody has claimed the keyspace yet: start once first".into()))
            }
        }
    }

    pub(crate) async fn empty(&self) -> Result<(), LogError> {
        self.marked.lock().clear();
        for statement in &self.statements.truncate {
            self.put("emptying a table", statement, ()).await?;
        }
        Ok(())
    }

    pub(crate) async fn node_starts(&self) -> Result<BTreeMap<String, Option<i64>>, LogError> {
        let session = self.link.session();
        let cluster = session.get_cluster_state();
        let asked = cluster.get_nodes_info().iter().map(async |node| {
            let started = self.node_start(&session, node).await?;
            Ok::<_, LogError>((node.host_id.to_string(), started))
        });
        Ok(self.each(asked).await?.into_iter().collect())
    }

    /// Asks in the given session alone: that one node is away is no reason for another.
    async fn node_start(&self, session: &Session, node: &Node) -> Result<Option<i64>, LogError> {
        let doing = "asking a node for its start";
        let mut statement = self.statements.incarnation.clone();
        let target = SingleTargetLoadBalancingPolicy::new(NodeIdentifier::HostId(node.host_id), None);
        statement.set_load_balancing_policy(Some(target));
        let answer = {
            let _permit = self.reads.acquire().await;
            session.execute_unpaged(&statement, ()).await
        };
        match answer.map_err(|it| error::of_request(doing, &it)) {
            Ok(answer) => {
                let rows = answer.into_rows_result().map_err(|it| error::unreadable(doing, it))?;
                let (started,) = rows.first_row::<(i32,)>().map_err(|it| error::unreadable(doing, it))?;
                Ok(Some(i64::from(started)))
            }
            Err(LogError::Unavailable(_)) => Ok(None),
            Err(error) => Err(error),
        }
    }
}

fn deployments(page: &QueryRowsResult, found: &mut Vec<Found>) -> Result<(), String> {
    for row in page.rows::<(&str, &str, i32, i32, bool)>().map_err(|it| it.to_string())? {
        let (name, cluster, partitions, buckets, rebuilding) = row.map_err(|it| it.to_string())?;
        found.push((Text::from(name), Text::from(cluster), partitions, buckets, rebuilding));
    }
    Ok(())
}

/// ScyllaDB sends the old values along: only the first column is looked at.
fn applied(page: &QueryRowsResult) -> Result<bool, String> {
    use scylla::value::{CqlValue, Row};
    let row = page.first_row::<Row>().map_err(|it| it.to_string())?;
    match row.columns.first() {
        Some(Some(CqlValue::Boolean(applied))) => Ok(*applied),
        other => Err(format!("{other:?} is not whether it was applied")),
    }
}
