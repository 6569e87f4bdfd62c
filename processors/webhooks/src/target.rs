//! Where deliveries may go: never into our own network.

use std::fmt;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};
use thiserror::Error;
use url::{Host, Url};

/// The longest URL of an endpoint, bytes.
pub const URL_BYTES_MAX: usize = 2_048;

/// Where deliveries may go.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct TargetPolicy {
    /// Development alone: private addresses, and `http`.
    pub allow_private: bool,
}

/// Why a URL cannot be an endpoint's.
#[derive(Clone, Debug, Error, PartialEq, Eq)]
pub enum TargetError {
    /// Not a URL.
    #[error("is not an absolute URL: {0}")]
    NoUrl(String),
    /// Too long.
    #[error("has {0} bytes; send at most {URL_BYTES_MAX}")]
    TooLong(usize),
    /// Not `https`.
    #[error("has the scheme {0:?}; deliveries are sent over https alone")]
    Scheme(String),
    /// A user name or password.
    #[error("has a user name or password; check the signature instead")]
    Credentials,
    /// A fragment.
    #[error("has a fragment, which is never sent")]
    Fragment,
    /// A name that only means something inside a network.
    #[error("names {0:?}, which is no public host")]
    PrivateName(String),
    /// An address of a private or special network.
    #[error("leads to {0}, which is no public address")]
    PrivateAddress(IpAddr),
}

impl TargetPolicy {
    /// Reads an endpoint's URL.
    ///
    /// # Errors
    /// [`TargetError`]
    pub fn check(self, text: &str) -> Result<Url, TargetError> {
        if text.len() > URL_BYTES_MAX {
            return Err(TargetError::TooLong(text.len()));
        }
        let url = Url::parse(text).map_err(|error| TargetError::NoUrl(error.to_string()))?;
        match url.scheme() {
            "https" => {}
            "http" if self.allow_private => {}
            other => return Err(TargetError::Scheme(other.to_owned())),
        }
        if !url.username().is_empty() || url.password().is_some() {
            return Err(TargetError::Credentials);
        }
        if url.fragment().is_some() {
            return Err(TargetError::Fragment);
        }
        match url.host() {
            None => return Err(TargetError::NoUrl("it has no host".to_owned())),
            Some(Host::Domain(name)) if !self.allow_private && is_private_name(name) => {
                return Err(TargetError::PrivateName(name.to_owned()));
            }
            Some(Host::Domain(_)) => {}
            Some(Host::Ipv4(address)) => self.check_address(address.into())?,
            Some(Host::Ipv6(address)) => self.check_address(address.into())?,
        }
        Ok(url)
    }

    /// Whether a connection may go to this address. Asked again for every connection, once the name is resolved: the
    /// address that was checked is the one to connect to.
    ///
    /// # Errors
    /// [`TargetError::PrivateAddress`]
    pub fn check_address(self, address: IpAddr) -> Result<(), TargetError> {
        match self.allow_private || is_public(address) {
            true => Ok(()),
            false => Err(TargetError::PrivateAddress(address)),
        }
    }
}

/// Names that are looked up in a local network, if anywhere.
fn is_private_name(name: &str) -> bool {
    const SUFFIXES: [&str; 9] =
        ["localhost", "local", "internal", "intranet", "lan", "home", "corp", "home.arpa", "localdomain"];
    let name = name.trim_end_matches('.').to_ascii_lowercase();
    !name.contains('.')
        || SUFFIXES.iter().any(|it| name.strip_suffix(it).is_some_and(|rest| rest.ends_with('.')))
}

/// Whether an address is anybody's on the Internet, and nothing special.
pub fn is_public(address: IpAddr) -> bool {
    match address {
        IpAddr::V4(address) => is_public_v4(address),
        IpAddr::V6(address) => is_public_v6(address),
    }
}

/// A network: its first address, and how many bits of it count.
struct Network<T>(T, u32);

impl<T: fmt::Debug> fmt::Debug for Network<T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:?}/{}", self.0, self.1)
    }
}

/// IANA's special-purpose registry, and what is multicast or reserved.
const SPECIAL_V4: [Network<Ipv4Addr>; 16] = [
    Network(Ipv4Addr::new(0, 0, 0, 0), 8),
    Network(Ipv4Addr::new(10, 0, 0, 0), 8),
    Network(Ipv4Addr::new(100, 64, 0, 0), 10),
    Network(Ipv4Addr::new(127, 0, 0, 0), 8),
    Network(Ipv4Addr::new(169, 254, 0, 0), 16),
    Network(Ipv4Addr::new(172, 16, 0, 0), 12),
    Network(Ipv4Addr::new(192, 0, 0, 0), 24),
    Network(Ipv4Addr::new(192, 0, 2, 0), 24),
    Network(Ipv4Addr::new(192, 31, 196, 0), 24),
    Network(Ipv4Addr::new(192, 52, 193, 0), 24),
    Network(Ipv4Addr::new(192, 88, 99, 0), 24),
    Network(Ipv4Addr::new(192, 168, 0, 0), 16),
    Network(Ipv4Addr::new(198, 18, 0, 0), 15),
    Network(Ipv4Addr::new(198, 51, 100, 0), 24),
    Network(Ipv4Addr::new(203, 0, 113, 0), 24),
    // Multicast, and all behind it.
    Network(Ipv4Addr::new(224, 0, 0, 0), 3),
];

/// What is special within 2000::/3, the only addresses in public use: protocol assignments with Teredo, documentation,
/// 6to4 (which carries any IPv4 address), and documentation again.
const SPECIAL_V6: [Network<Ipv6Addr>; 4] = [
    Network(Ipv6Addr::new(0x2001, 0, 0, 0, 0, 0, 0, 0), 23),
    Network(Ipv6Addr::new(0x2001, 0x0db8, 0, 0, 0, 0, 0, 0), 32),
    Network(Ipv6Addr::new(0x2002, 0, 0, 0, 0, 0, 0, 0), 16),
    Network(Ipv6Addr::new(0x3fff, 0, 0, 0, 0, 0, 0, 0), 20),
];

fn is_public_v4(address: Ipv4Addr) -> bool {
    let within = |it: &Network<Ipv4Addr>| (it.0.to_bits() ^ address.to_bits()) >> (32 - it.1) == 0;
    !SPECIAL_V4.iter().any(within)
}

fn is_public_v6(address: Ipv6Addr) -> bool {
    let within = |it: &Network<Ipv6Addr>| (it.0.to_bits() ^ address.to_bits()) >> (128 - it.1) == 0;
    within(&Network(Ipv6Addr::new(0x2000, 0, 0, 0, 0, 0, 0, 0), 3)) && !SPECIAL_V6.iter().any(within)
}

#[cfg(test)]
mod tests;
