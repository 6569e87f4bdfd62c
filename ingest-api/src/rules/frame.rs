//! What every call about a rule begins with, says of itself, and ends with.

use super::view::Shown;
use crate::Ingest;
use crate::auth::Caller;
use crate::body;
use crate::openapi::{Answer, Call};
use crate::params::Segments;
use crate::ports::{RuleView, Rules, RulesError};
use crate::problem::{Code, Problem};
use crate::shape::{self, Field, Kind};
use axum::Json;
use axum::body::Body;
use axum::extract::FromRequestParts;
use axum::response::{IntoResponse, Response};
use http::HeaderMap;
use http::request::Parts;
use serde::Deserialize;
use serde::de::DeserializeOwned;
use std::sync::Arc;
use tillstream_rule_lifecycle::{Rule, RuleRefusal};
use tillstream_schemas::Text;
use tillstream_schemas::rules::{RuleEvent, RulePayload};

pub(super) const NAME_MAX: usize = 64;
pub(super) const NAME: Kind = Kind::Slug { max: NAME_MAX };
pub(super) const EXAMPLE: &str = "volume-discount";

/// A call about one rule.
pub(super) fn about_rule(call: Call) -> Call {
    call.segment("name", NAME, "The rule's name", EXAMPLE).problem(Code::NotFound)
}

/// A call that changes one rule, and answers what it is then.
pub(super) fn changes_rule(call: Call) -> Call {
    about_rule(call).answer(Answer::json::<Shown>(200, "The rule")).problem(Code::RuleConflict).writes()
}

/// Who asks, and about which rule. What the path says besides is [`OnRule::id`].
pub(crate) struct OnRule {
    pub(super) ingest: Arc<Ingest>,
    pub(super) caller: Caller,
    pub(super) name: String,
    /// The id of what belongs to the rule; empty where the path has none.
    pub(super) id: String,
}

#[derive(Deserialize)]
struct InPath {
    name: String,
    #[serde(default)]
    id: String,
}

impl FromRequestParts<Arc<Ingest>> for OnRule {
    type Rejection = Problem;

    async fn from_request_parts(parts: &mut Parts, ingest: &Arc<Ingest>) -> Result<Self, Problem> {
        let caller = Caller::from_request_parts(parts, ingest).await?;
        let Segments(InPath { name, id }) = Segments::from_request_parts(parts, ingest).await?;
        Ok(Self { ingest: ingest.clone(), caller, name, id })
    }
}

impl OnRule {
    /// A name that can stand in a path, a file and a key as it is.
    ///
    /// # Errors
    /// 400 for another one.
    pub(super) fn checked_name(&self) -> Result<Text, Problem> {
        if shape::is_slug(&self.name, NAME_MAX) {
            return Ok(self.name.as_str().into());
        }
        Err(Problem::parameter(
            "name",
            "cannot be a rule's name",
            "send 1 to 64 of a to z, 0 to 9 and -, not beginning with -",
        ))
    }

    pub(super) fn rules(&self) -> Result<&dyn Rules, Problem> {
        rules(&self.ingest)
    }

    /// The rule, with what this process knows of it.
    ///
    /// # Errors
    /// 404 when the tenant has none of this name.
    pub(super) fn view(&self) -> Result<RuleView, Problem> {
        let found = self.rules()?.get(&self.caller.tenant, &self.name);
        found.ok_or_else(|| Problem::not_found("rule", &self.name))
    }

    /// The rule.
    ///
    /// # Errors
    /// As [`OnRule::view`].
    pub(super) fn rule(&self) -> Result<Rule, Problem> {
        Ok(self.view()?.rule)
    }

    /// Puts a change into force, and answers what the rule is then. What is not there needs no event; the fold judges all
    /// else.
    ///
    /// # Errors
    /// Why it is not taken.
    pub(super) async fn change(&self, payload: RulePayload) -> Result<Response, Problem> {
        let name = self.view()?.name;
        change(&self.ingest, &self.caller, name, payload).await?;
        Ok(Json(super::view::shown(&self.view()?)).into_response())
    }
}

/// A JSON body, by the table of its fields.
///
/// # Errors
/// Everything that is wrong with it.
pub(super) async fn read<T: DeserializeOwned>(
    headers: &HeaderMap,
    body: Body,
    fields: &'static [Field],
) -> Result<T, Problem> {
    shape::read(&body::json(headers, body).await?, fields)
}

pub(super) fn rules(ingest: &Ingest) -> Result<&dyn Rules, Problem> {
    let missing = || Problem::new(Code::Stopped, "this process runs no rules");
    ingest.rules.as_deref().ok_or_else(missing)
}

/// Appends a change of a tenant's rules; in force in this process once this returns.
///
/// # Errors
/// Why it is not taken.
pub(super) async fn change(
    ingest: &Ingest,
    caller: &Caller,
    rule: Text,
    payload: RulePayload,
) -> Result<(), Problem> {
    let rules = rules(ingest)?;
    let event = RuleEvent {
        id: rules.new_id()?,
        tenant: caller.tenant.clone(),
        occurred_at_ms: ingest.clock.now_ms(),
        actor: caller.key_id.clone(),
        rule,
        payload,
    };
    let verdict = rules.change(&event).await?;
    verdict.map_err(|refusal| match refusal {
        RuleRefusal::UnknownRule => Problem::not_found("rule", &event.rule),
        RuleRefusal::UnknownKey(id) => Problem::not_found("signing key", &id),
        RuleRefusal::Signature(refusal) => Problem::new(Code::SignatureRefused, refusal.to_string()),
        RuleRefusal::DryRun { .. } => Problem::about(
            Code::DryRunRefused,
            "forced",
            refusal.to_string(),
            "mend the version and upload it again; or send forced: true to put it in force nevertheless",
        ),
        refusal => Problem::new(Code::RuleConflict, refusal.to_string()),
    })
}

impl From<RulesError> for Problem {
    fn from(error: RulesError) -> Self {
        tracing::error!(%error, "rules cannot be changed");
        match error {
            RulesError::Log(error) => error.into(),
            RulesError::Other(text) => Self::new(Code::Stopped, text).retry_after(2),
        }
    }
}
