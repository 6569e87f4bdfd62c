//! What is put in force: signed by whom its tenant trusts, and not known to fail.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, missing_docs, reason = "tests")]

mod support;

use ring::signature::{Ed25519KeyPair, KeyPair};
use support::World;
use tillstream_rule_lifecycle::{
    RuleRefusal, SIGNING_KEYS_MAX, SignatureRefusal, signed_text, signing_key_id, to_hex,
};
use tillstream_schemas::Text;
use tillstream_schemas::rules::*;

struct Signer(Ed25519KeyPair);

impl Signer {
    fn new(seed: u8) -> Self {
        Self(Ed25519KeyPair::from_seed_unchecked(&[seed; 32]).unwrap())
    }

    fn public_key(&self) -> Text {
        to_hex(self.0.public_key().as_ref()).into()
    }

    fn id(&self) -> Text {
        signing_key_id(&self.public_key()).unwrap()
    }

    fn sign(&self, digest: &str) -> Option<RuleSignature> {
        let signature = to_hex(self.0.sign(signed_text(digest).as_bytes()).as_ref()).into();
        Some(RuleSignature { key_id: self.id(), signature })
    }
}

impl World {
    fn upload(&mut self, digest: &str, signature: Option<RuleSignature>) -> Result<(), RuleRefusal> {
        self.upload_of("demo", digest, signature)
    }

    fn upload_of(
        &mut self,
        tenant: &str,
        digest: &str,
        signature: Option<RuleSignature>,
    ) -> Result<(), RuleRefusal> {
        let hooks = vec!["price".into()];
        let (digest, settings_schema) = (digest.into(), None);
        let it = RuleVersionUploaded { digest, size_bytes: 9, hooks, settings_schema, signature };
        self.take(tenant, "r", RulePayload::Uploaded(it))
    }

    fn add(&mut self, signer: &Signer) {
        let (key_id, public_key) = (signer.id(), signer.public_key());
        let it = RuleSigningKeyAdded { key_id, name: "ci".into(), public_key };
        self.take("demo", "", RulePayload::SigningKeyAdded(it)).unwrap();
    }

    fn revoke(&mut self, key_id: Text) -> Result<(), RuleRefusal> {
        self.take("demo", "", RulePayload::SigningKeyRevoked(RuleSigningKeyRevoked { key_id }))
    }

    fn require(&mut self, required: bool) -> Result<(), RuleRefusal> {
        self.take("demo", "", RulePayload::SigningConfigured(RuleSigningConfigured { required }))
    }

    fn activate(&mut self, version: i64, settings: &str, forced: bool) -> Result<(), RuleRefusal> {
        let (settings, fallback, expected_revision) = (settings.into(), RuleFallback::Skip, None);
        let it = RuleActivated { version, order: 10, settings, fallback, expected_revision, forced };
        self.take("demo", "r", RulePayload::Activated(it))
    }

    fn canary(&mut self, version: i64, forced: bool) -> Result<(), RuleRefusal> {
        let it = RuleCanaried {
            version,
            percent: 5,
            order: 10,
            settings: "{}".into(),
            fallback: RuleFallback::Skip,
            failures_max: 10,
            difference_max_minor: None,
            expected_revision: None,
            forced,
        };
        self.take("demo", "r", RulePayload::Canaried(it))
    }

    fn shadow(&mut self, version: i64) -> Result<(), RuleRefusal> {
        let it = RuleShadowed { version, settings: "{}".into(), expected_revision: None };
        self.take("demo", "r", RulePayload::Shadowed(it))
    }

    fn configure(&mut self, settings: &str, forced: bool) -> Result<(), RuleRefusal> {
        let it = RuleConfigured { settings: settings.into(), expected_revision: None, forced };
        self.take("demo", "r", RulePayload::Configured(it))
    }

    fn roll_back(&mut self) -> Result<(), RuleRefusal> {
        self.take("demo", "r", RulePayload::RolledBack(RuleRolledBack { expected_revision: None }))
    }

    /// A dry run of 10 inputs.
    fn tried(&mut self, version: i64, settings: &str, failures: i64) -> Result<(), RuleRefusal> {
        let hook = RuleTriedHook {
            hook: "price".into(),
            inputs: RuleInputs::Samples,
            calls: 10,
            failures: vec![RuleFailures { outcome: "trap".into(), calls: failures }],
            fuel_p50: 1,
            fuel_max: 1,
            changed: 0,
        };
        let it = RuleTried { version, settings: settings.into(), against: None, hooks: vec![hook] };
        self.take("demo", "r", RulePayload::Tried(it))
    }

    fn active(&self) -> Option<i64> {
        Some(self.rules.get("demo", "r")?.in_force()?.1.number)
    }
}

#[test]
fn where_signatures_are_needed_only_a_key_in_force_lets_a_module_in_and_into_force() {
    let (mut world, ci, other) = (World::default(), Signer::new(1), Signer::new(2));
    world.upload("old", None).unwrap();
    assert_eq!(world.require(true), Err(RuleRefusal::NoKey), "nobody could sign");
    world.add(&ci);
    world.require(true).unwrap();
    let missing = Err(RuleRefusal::Signature(SignatureRefusal::Missing));
    assert_eq!(
        (world.upload("new", None), world.activate(1, "{}", true)),
        (missing.clone(), missing.clone())
    );
    assert_eq!((world.shadow(1), world.canary(1, true)), (missing.clone(), missing));
    let unknown = SignatureRefusal::UnknownKey(other.id());
    assert_eq!(world.upload("new", other.sign("new")), Err(unknown.into()));
    assert_eq!(world.upload("new", ci.sign("old")), Err(SignatureRefusal::Wrong(ci.id()).into()));
    assert_eq!(world.rules.get("demo", "r").unwrap().versions.len(), 1, "nothing was taken");

    world.upload("new", ci.sign("new")).unwrap();
    world.activate(2, "{}", false).unwrap();
    world.upload("old", ci.sign("old")).unwrap();
    let old = world.rules.get("demo", "r").unwrap().version(1).unwrap().clone();
    assert_eq!(
        old.signed_by,
        Some(ci.id()),
        "a version that is there already is signed by the same upload again"
    );
    world.activate(1, "{}", false).unwrap();

    world.revoke(ci.id()).unwrap();
    let revoked = Err(RuleRefusal::Signature(SignatureRefusal::RevokedKey(ci.id())));
    assert_eq!((world.activate(2, "{}", true), world.upload("x", ci.sign("x"))), (revoked.clone(), revoked));
    world.add(&ci);
    assert!(world.activate(2, "{}", true).is_err(), "a revoked key does not come back");
    world.roll_back().unwrap();
    assert_eq!(world.active(), Some(2), "a rollback always holds");
    world.upload_of("other", "d", None).unwrap();
    world.require(false).unwrap();
    world.upload("x", None).unwrap();
}

#[test]
fn a_false_signature_is_refused_also_where_none_is_needed() {
    let (mut world, ci) = (World::default(), Signer::new(1));
    assert!(
        matches!(world.upload("d", ci.sign("d")), Err(RuleRefusal::Signature(_))),
        "nobody knows the key"
    );
    world.add(&ci);
    assert_eq!(world.upload("d", ci.sign("e")), Err(SignatureRefusal::Wrong(ci.id()).into()));
    assert!(world.rules.get("demo", "r").is_none());
    assert_eq!(world.revoke("sgn_x".into()), Err(RuleRefusal::UnknownKey("sgn_x".into())));
}

#[test]
fn a_tenant_has_so_many_keys_at_most() {
    let mut world = World::default();
    for seed in 0..SIGNING_KEYS_MAX {
        world.add(&Signer::new(u8::try_from(seed).unwrap()));
    }
    world.add(&Signer::new(0));
    let one_more = Signer::new(200);
    let (key_id, public_key) = (one_more.id(), one_more.public_key());
    let it = RuleSigningKeyAdded { key_id, name: "ci".into(), public_key };
    let refused = world.take("demo", "", RulePayload::SigningKeyAdded(it));
    assert_eq!(refused, Err(RuleRefusal::TooMany(SIGNING_KEYS_MAX)));
}

#[test]
fn a_version_that_fails_on_most_recent_inputs_is_put_in_force_only_by_force() {
    let mut world = World::default();
    world.upload("a", None).unwrap();
    world.upload("b", None).unwrap();
    world.activate(1, "{}", false).unwrap();
    let revision = world.rules.get("demo", "r").unwrap().revision;
    world.tried(2, "{}", 6).unwrap();
    assert_eq!(world.rules.get("demo", "r").unwrap().revision, revision, "a dry run is no change");
    let refused = Err(RuleRefusal::DryRun { version: 2, calls: 10, failures: 6 });
    assert_eq!((world.activate(2, "{}", false), world.canary(2, false)), (refused.clone(), refused));
    assert_eq!(world.shadow(2), Ok(()), "nothing comes of what a shadow says");
    world.canary(2, true).unwrap();
    world.activate(2, r#"{"v":2}"#, false).expect("it was not tried with these settings");
    world.tried(2, r#"{"v":3}"#, 10).unwrap();
    assert!(matches!(world.configure(r#"{"v":3}"#, false), Err(RuleRefusal::DryRun { failures: 10, .. })));
    world.configure(r#"{"v":3}"#, true).unwrap();
    world.tried(1, "{}", 5).unwrap();
    world.activate(1, "{}", false).expect("half is not most");
    assert_eq!(world.tried(9, "{}", 0), Err(RuleRefusal::UnknownVersion(9)));
}
