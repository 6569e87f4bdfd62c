//! API keys of a process: followed before the door opens.

use super::crew::Crew;
use super::house::House;
use super::{DEMO_TENANT, ServeError};
use crate::cli::Serve;
use crate::output::line;
use tillstream_ingest_api::ApiKeys;
use tillstream_ingest_api::access::{KeyError, NewKey};
use tokio::task::JoinHandle;
use tracing::info;

/// The keys, followed to where the log ends now, those of an earlier version among them; and their follower.
pub async fn open(crew: &Crew, house: &House) -> Result<(ApiKeys, JoinHandle<()>), ServeError> {
    let open = async || Ok(ApiKeys::open(house.registries.clone(), house.clock.clone()).await?);
    let keys = house.patience.ask(open).await?;
    let (followed, stopping) = (keys.clone(), crew.stopping.clone());
    let work = async move { followed.run_follower(stopping).await };
    let follower = crew.spawn(crew.watched("the follower of API keys", work));
    keys.caught_up().await.map_err(KeyError::from)?;
    let taken_over = house.patience.ask(async || Ok(keys.take_over(&*house.earlier_keys).await?)).await?;
    if taken_over > 0 {
        info!(keys = taken_over, "API keys of an earlier version were taken over into the log");
    }
    Ok((keys, follower))
}

/// The first start makes a key for tenant `demo` and prints it; `TILLSTREAM_DEMO_KEY` sets it instead.
/// Of a broker that does not answer just then nobody knows whether it has the new key: that is not tried again.
pub async fn demo_key(options: &Serve, house: &House, keys: &ApiKeys) -> Result<(), ServeError> {
    if let Some(given) = &options.demo_key {
        house.patience.ask(async || Ok(keys.ensure(DEMO_TENANT, "demo", given).await?)).await?;
    } else if keys.is_empty()
        && let Some(key) = keys.create_first(NewKey::admin(DEMO_TENANT, "demo")).await?
    {
        line(format_args!("API key of tenant demo, shown this once: {key}"));
    }
    Ok(())
}
