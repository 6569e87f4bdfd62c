//! What one endpoint may have under way in this process, whatever the partition its events come from: a slow receiver
//! holds up nobody else, and a small one is not flooded.

use parking_lot::Mutex;
use std::collections::HashMap;
use std::sync::Arc;
use tillstream_schemas::Text;
use tillstream_webhooks::Endpoint;
use tokio::sync::Notify;

/// Attempts may come so much earlier than an even rate has them, ns.
const BURST_NS: u64 = 1_000_000_000;

#[derive(Debug, Default)]
struct Gate {
    in_flight: u32,
    /// When the next attempt would be due at an even rate, monotonic ns.
    even_ns: u64,
}

/// The gates of every endpoint.
#[derive(Clone, Debug, Default)]
pub struct Gates {
    gates: Arc<Mutex<HashMap<Text, Gate>>>,
    opened: Arc<Notify>,
}

/// The right to one attempt, until it is dropped.
#[derive(Debug)]
pub struct Permit {
    gates: Gates,
    endpoint: Text,
}

impl Gates {
    /// Asks for one attempt now (monotonic ns).
    ///
    /// # Errors
    /// When to ask again, monotonic ns; `None`: once [`Gates::opened`] resolves.
    pub fn enter(&self, endpoint: &Endpoint, now_ns: u64) -> Result<Permit, Option<u64>> {
        let mut gates = self.gates.lock();
        let gate = gates.entry(endpoint.id.clone()).or_default();
        if gate.in_flight >= endpoint.settings.in_flight_max.max(1).unsigned_abs() {
            return Err(None);
        }
        if let Some(rate) = endpoint.settings.rate_per_second {
            let even_ns = gate.even_ns.max(now_ns);
            if even_ns > now_ns + BURST_NS {
                return Err(Some(even_ns - BURST_NS));
            }
            gate.even_ns = even_ns + BURST_NS / u64::from(rate.max(1).unsigned_abs());
        }
        gate.in_flight += 1;
        Ok(Permit { gates: self.clone(), endpoint: endpoint.id.clone() })
    }

    /// Attempts under way.
    pub fn in_flight(&self) -> i64 {
        self.gates.lock().values().map(|it| i64::from(it.in_flight)).sum()
    }

    /// Resolves when an attempt has ended after this was called.
    pub async fn opened(&self) {
        self.opened.notified().await;
    }
}

impl Drop for Permit {
    fn drop(&mut self) {
        let mut gates = self.gates.gates.lock();
        if let Some(gate) = gates.get_mut(&self.endpoint) {
            gate.in_flight = gate.in_flight.saturating_sub(1);
            // A gate that nobody uses says nothing about the next attempt but its rate, which a second forgets.
            if gate.in_flight == 0 && gate.even_ns == 0 {
                gates.remove(&self.endpoint);
            }
        }
        drop(gates);
        self.gates.opened.notify_waiters();
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::testing::endpoint;

    #[test]
    fn an_endpoint_has_so_many_attempts_under_way_and_others_do_not_count() {
        let gates = Gates::default();
        let mut one = endpoint("whe_1", "https://a.example.com/");
        one.settings.in_flight_max = 2;
        let held: Vec<Permit> = (0..2).map(|_| gates.enter(&one, 0).unwrap()).collect();
        assert!(matches!(gates.enter(&one, 0), Err(None)));
        assert!(gates.enter(&endpoint("whe_2", "https://b.example.com/"), 0).is_ok());
        drop(held);
        assert!(gates.enter(&one, 0).is_ok());
    }

    #[test]
    fn a_rate_holds_over_time_and_a_burst_is_a_second() {
        let gates = Gates::default();
        let mut slow = endpoint("whe_1", "https://a.example.com/");
        slow.settings.rate_per_second = Some(10);
        let (mut now_ns, mut made) = (0, 0);
        while now_ns <= 10 * BURST_NS {
            match gates.enter(&slow, now_ns) {
                Ok(_) => made += 1,
                Err(at_ns) => now_ns = at_ns.unwrap(),
            }
        }
        assert!((100..=122).contains(&made), "{made} in ten seconds");
    }
}
