//! Who may sign a tenant's modules, and whether a signature holds.
//!
//! What is signed is a line that names the module's digest ([`signed_text`]), so that a signature is of this one module
//! and can be taken for nothing else. A key's id is made from the key: who has the key knows its id.

use ring::signature::{ED25519, ED25519_PUBLIC_KEY_LEN, UnparsedPublicKey};
use sha2::{Digest, Sha256};
use std::collections::BTreeMap;
use thiserror::Error;
use tillstream_schemas::Text;
use tillstream_schemas::rules::{RuleSignature, RuleSigningKeyAdded};

/// Signing keys of one tenant, at most, revoked ones included.
pub const SIGNING_KEYS_MAX: usize = 50;
/// Bytes of the digest of a key that its id has.
const ID_BYTES: usize = 10;

/// A key that signs modules.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct SigningKey {
    /// What people call it.
    pub name: Text,
    /// The Ed25519 public key, in hex.
    pub public_key: Text,
    /// When it was added, ms since the epoch.
    pub added_at_ms: i64,
    /// Who added it.
    pub actor: Text,
    /// Since when it signs no more, ms since the epoch.
    pub revoked_at_ms: Option<i64>,
}

/// A tenant's signing keys, and whether a signature is needed.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Signing {
    /// Whether a module without a signature of a key in force is refused.
    pub required: bool,
    /// By id.
    pub keys: BTreeMap<Text, SigningKey>,
}

/// Why a module's signature is not taken.
#[derive(Clone, Debug, PartialEq, Eq, Error)]
pub enum SignatureRefusal {
    /// There is none.
    #[error(
        "the tenant takes signed modules alone, and this one has no signature; sign it with `tillstream rules sign`"
    )]
    Missing,
    /// The key is none of the tenant's.
    #[error(
        "the tenant has no signing key {0}; add its public key first, or sign with another (`tillstream rules signing`)"
    )]
    UnknownKey(Text),
    /// The key was revoked.
    #[error("the signing key {0} was revoked; sign the module with another")]
    RevokedKey(Text),
    /// It is of something else.
    #[error(
        "the signature is not one of the key {0} over this module; a module that was built again is signed again"
    )]
    Wrong(Text),
}

/// Why a text is no public key.
#[derive(Clone, Debug, PartialEq, Eq, Error)]
#[error("it is no Ed25519 public key: send its 32 bytes in hex, as `tillstream rules keygen` prints them")]
pub struct NoPublicKey;

/// What a signature of a module is over.
pub fn signed_text(digest: &str) -> String {
    format!("tillstream rule module sha256:{digest}")
}

/// The id of a public key.
///
/// # Errors
/// When it is none.
pub fn signing_key_id(public_key: &str) -> Result<Text, NoPublicKey> {
    let bytes = public_key_bytes(public_key)?;
    Ok(format!("sgn_{}", to_hex(&Sha256::digest(bytes)[..ID_BYTES])).into())
}

fn public_key_bytes(public_key: &str) -> Result<Vec<u8>, NoPublicKey> {
    from_hex(public_key).filter(|it| it.len() == ED25519_PUBLIC_KEY_LEN).ok_or(NoPublicKey)
}

/// Bytes in hex, as keys and signatures are written.
pub fn to_hex(bytes: &[u8]) -> String {
    bytes.iter().map(|it| format!("{it:02x}")).collect()
}

fn from_hex(text: &str) -> Option<Vec<u8>> {
    if !text.len().is_multiple_of(2) || !text.bytes().all(|it| matches!(it, b'0'..=b'9' | b'a'..=b'f')) {
        return None;
    }
    (0..text.len()).step_by(2).map(|at| u8::from_str_radix(text.get(at..at + 2)?, 16).ok()).collect()
}

impl Signing {
    /// Whether a module may be taken: a signature that is there must hold, and where one is needed it must be there.
    ///
    /// # Errors
    /// Why not.
    pub fn check(&self, digest: &str, signature: Option<&RuleSignature>) -> Result<(), SignatureRefusal> {
        let Some(RuleSignature { key_id, signature }) = signature else {
            return if self.required { Err(SignatureRefusal::Missing) } else { Ok(()) };
        };
        let key = self.in_force(key_id)?;
        let wrong = || SignatureRefusal::Wrong(key_id.clone());
        let public_key = public_key_bytes(&key.public_key).map_err(|_| wrong())?;
        let signature = from_hex(signature).ok_or_else(wrong)?;
        let key = UnparsedPublicKey::new(&ED25519, public_key);
        key.verify(signed_text(digest).as_bytes(), &signature).map_err(|_| wrong())
    }

    /// Whether a version may be put in force, by the key that signed it: a signature held when it was taken, so only the
    /// key is looked at again.
    ///
    /// # Errors
    /// Why not.
    pub fn check_signed_by(&self, key_id: Option<&Text>) -> Result<(), SignatureRefusal> {
        match key_id {
            _ if !self.required => Ok(()),
            None => Err(SignatureRefusal::Missing),
            Some(key_id) => self.in_force(key_id).map(|_| ()),
        }
    }

    fn in_force(&self, key_id: &Text) -> Result<&SigningKey, SignatureRefusal> {
        match self.keys.get(key_id) {
            None => Err(SignatureRefusal::UnknownKey(key_id.clone())),
            Some(key) if key.revoked_at_ms.is_some() => Err(SignatureRefusal::RevokedKey(key_id.clone())),
            Some(key) => Ok(key),
        }
    }

    /// Whether any key signs.
    pub fn has_key(&self) -> bool {
        self.keys.values().any(|it| it.revoked_at_ms.is_none())
    }

    /// A key that is added twice is the same key; one that was revoked stays so: its id is made from it.
    pub(crate) fn add(&mut self, it: &RuleSigningKeyAdded, actor: &Text, at_ms: i64) {
        self.keys.entry(it.key_id.clone()).or_insert_with(|| SigningKey {
            name: it.name.clone(),
            public_key: it.public_key.clone(),
            added_at_ms: at_ms,
            actor: actor.clone(),
            revoked_at_ms: None,
        });
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use ring::signature::{Ed25519KeyPair, KeyPair};

    fn pair(seed: u8) -> (Ed25519KeyPair, Text, Signing) {
        let pair = Ed25519KeyPair::from_seed_unchecked(&[seed; 32]).unwrap();
        let public_key = Text::from(to_hex(pair.public_key().as_ref()));
        let key_id = signing_key_id(&public_key).unwrap();
        let mut signing = Signing::default();
        let added = RuleSigningKeyAdded { key_id: key_id.clone(), name: "build".into(), public_key };
        signing.add(&added, &"key_1".into(), 1);
        (pair, key_id, signing)
    }

    fn signed(pair: &Ed25519KeyPair, key_id: &Text, text: &str) -> RuleSignature {
        let signature = to_hex(pair.sign(text.as_bytes()).as_ref()).into();
        RuleSignature { key_id: key_id.clone(), signature }
    }

    #[test]
    fn a_signature_is_of_one_module_by_one_key() {
        let (pair_1, key_id, signing) = pair(1);
        let good = signed(&pair_1, &key_id, &signed_text("d1"));
        assert_eq!(signing.check("d1", Some(&good)), Ok(()));
        let wrong = Err(SignatureRefusal::Wrong(key_id.clone()));
        assert_eq!(signing.check("d2", Some(&good)), wrong, "another module");
        assert_eq!(signing.check("d1", Some(&signed(&pair_1, &key_id, "d1"))), wrong, "the bare digest");
        assert_eq!(signing.check("d1", Some(&signed(&pair(2).0, &key_id, &signed_text("d1")))), wrong);
        for text in ["", "no hex!", "abc", "aabb", "äöü"] {
            let bad = RuleSignature { signature: text.into(), ..good.clone() };
            assert_eq!(signing.check("d1", Some(&bad)), wrong, "{text}");
        }
        let (pair_2, other_id, _) = pair(2);
        let unknown = signed(&pair_2, &other_id, &signed_text("d1"));
        assert_eq!(signing.check("d1", Some(&unknown)), Err(SignatureRefusal::UnknownKey(other_id)));
    }

    #[test]
    fn without_a_signature_a_module_is_taken_only_where_none_is_needed() {
        let (_, key_id, mut signing) = pair(1);
        assert_eq!((signing.check("d1", None), signing.check_signed_by(None)), (Ok(()), Ok(())));
        signing.required = true;
        let missing = Err(SignatureRefusal::Missing);
        assert_eq!((signing.check("d1", None), signing.check_signed_by(None)), (missing.clone(), missing));
        assert_eq!(signing.check_signed_by(Some(&key_id)), Ok(()));
        signing.keys.get_mut(&key_id).unwrap().revoked_at_ms = Some(2);
        let revoked = Err(SignatureRefusal::RevokedKey(key_id.clone()));
        assert_eq!(signing.check_signed_by(Some(&key_id)), revoked);
        assert!(!signing.has_key());
    }

    #[test]
    fn only_32_bytes_in_hex_are_a_public_key() {
        for text in ["", "aaaa", "not hex", &"AB".repeat(32), &"ab".repeat(33)] {
            assert_eq!(signing_key_id(text), Err(NoPublicKey), "{text}");
        }
        let id = signing_key_id(&"ab".repeat(32)).unwrap();
        assert!(id.starts_with("sgn_") && id.len() == 24, "{id}");
    }
}
