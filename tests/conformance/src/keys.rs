//! What every store of API keys promises.

use std::sync::Arc;
use tillstream_schemas::Text;
use tillstream_state::{Keys, StoredKey};

/// Runs every case on a store of its own.
pub async fn keys_suite<S: Keys>(make: impl AsyncFn() -> Arc<S>) {
    keys_are_listed_in_id_order_as_they_were_written_last(&*make().await).await;
}

fn key(id: &str, hash: u8) -> StoredKey {
    StoredKey {
        id: Text::new(id),
        tenant: Text::new("demo"),
        hash: [hash; 32],
        name: Text::new("the till in Köln"),
        created_at_ms: 1_700_000_000_000,
        revoked_at_ms: None,
    }
}

async fn keys_are_listed_in_id_order_as_they_were_written_last(store: &impl Keys) {
    assert_eq!(store.list_keys().await, Ok(Vec::new()));
    for (id, hash) in [("key_b", 2), ("key_a", 1), ("key_c", 3)] {
        store.put_key(key(id, hash)).await.unwrap();
    }
    let revoked = StoredKey { revoked_at_ms: Some(1_800_000_000_000), ..key("key_b", 2) };
    store.put_key(revoked.clone()).await.unwrap();
    assert_eq!(store.list_keys().await, Ok(vec![key("key_a", 1), revoked, key("key_c", 3)]));
}
