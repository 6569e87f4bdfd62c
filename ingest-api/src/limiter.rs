//! How often one address may call without a valid key: 100 times a minute.

use parking_lot::Mutex;
use rustc_hash::FxHashMap;
use std::net::IpAddr;

/// Calls without a valid key that one address has per minute.
pub(crate) const CALLS_PER_MINUTE: u32 = 100;
const WINDOW_MS: i64 = 60_000;
/// Past so many addresses the old ones are forgotten; past so many live ones everything is.
const ADDRESSES_MAX: usize = 50_000;

/// Counts per address, in fixed windows of a minute.
#[derive(Default)]
pub(crate) struct Limiter {
    windows: Mutex<FxHashMap<IpAddr, Window>>,
}

struct Window {
    began_ms: i64,
    calls: u32,
}

impl Limiter {
    /// Counts a call.
    ///
    /// # Errors
    /// The seconds until the address may call again.
    pub(crate) fn count(&self, address: IpAddr, now_ms: i64) -> Result<(), u32> {
        let mut windows = self.windows.lock();
        if windows.len() >= ADDRESSES_MAX {
            windows.retain(|_, it| now_ms - it.began_ms < WINDOW_MS);
            if windows.len() >= ADDRESSES_MAX {
                windows.clear();
            }
        }
        let window = windows.entry(network(address)).or_insert(Window { began_ms: now_ms, calls: 0 });
        if !(0..WINDOW_MS).contains(&(now_ms - window.began_ms)) {
            *window = Window { began_ms: now_ms, calls: 0 };
        }
        if window.calls >= CALLS_PER_MINUTE {
            let left_ms = WINDOW_MS - (now_ms - window.began_ms);
            return Err(u32::try_from((left_ms + 999).div_euclid(1_000)).unwrap_or(60));
        }
        window.calls += 1;
        Ok(())
    }
}

/// An IPv6 customer has a /64 at least: count that, not the address.
fn network(address: IpAddr) -> IpAddr {
    match address {
        IpAddr::V6(v6) => match v6.to_ipv4_mapped() {
            Some(v4) => IpAddr::V4(v4),
            None => IpAddr::V6((u128::from(v6) & (u128::MAX << 64)).into()),
        },
        v4 => v4,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_101st_call_within_a_minute_waits_and_the_next_minute_is_free() {
        let limiter = Limiter::default();
        let address: IpAddr = "192.0.2.1".parse().unwrap();
        for _ in 0..CALLS_PER_MINUTE {
            limiter.count(address, 5_000).unwrap();
        }
        assert_eq!(limiter.count(address, 35_000), Err(30));
        assert_eq!(limiter.count("192.0.2.2".parse().unwrap(), 35_000), Ok(()));
        assert_eq!(limiter.count(address, 65_000), Ok(()));
    }

    #[test]
    fn addresses_of_one_v6_network_share_their_count() {
        let limiter = Limiter::default();
        for call in 0..CALLS_PER_MINUTE {
            limiter.count(format!("2001:db8::{call:x}").parse().unwrap(), 0).unwrap();
        }
        assert!(limiter.count("2001:db8::ffff".parse().unwrap(), 0).is_err());
        assert!(limiter.count("2001:db8:0:1::1".parse().unwrap(), 0).is_ok());
    }
}
