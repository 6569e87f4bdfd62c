//! RFC 9457 problems: what went wrong, which field it is about, and what to do about it.

use axum::response::{IntoResponse, Response};
use http::{HeaderValue, StatusCode, header};
use schemars::JsonSchema;
use serde::Serialize;
use tillstream_log::LogError;
use tillstream_registry_log::RegistryError;
use tillstream_schemas::codec::CodecError;

/// The stable codes of this crate. A code is never given another meaning.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Code {
    /// No API key, an unknown one, or a revoked one.
    Unauthorized,
    /// Too many calls without a valid key from one address.
    TooManyRequests,
    /// No such path.
    NoSuchPath,
    /// The path does not take this method.
    MethodNotAllowed,
    /// The resource does not exist for this tenant.
    NotFound,
    /// The body is not JSON.
    MalformedJson,
    /// Fields of the body cannot be taken.
    InvalidFields,
    /// The Idempotency-Key is missing or cannot be one.
    IdempotencyKey,
    /// The Idempotency-Key was used with another body.
    IdempotencyConflict,
    /// The body is larger than the limit.
    BodyTooLarge,
    /// The body's media type or encoding is not taken.
    UnsupportedMediaType,
    /// Query parameters (or path segments) cannot be taken.
    InvalidParameters,
    /// The tasks have not caught up with the log since the start.
    NotReady,
    /// The tasks lag too far behind to take more.
    Overloaded,
    /// The disk is full: what is there stays, nothing new is taken.
    DiskFull,
    /// The store has stopped.
    Stopped,
    /// A fault of ours.
    Internal,
    /// A change was accepted but is not in force yet.
    NotInForceYet,
    /// The sandbox provider refuses: no such payment, or it asks for nothing.
    SandboxRefused,
    /// The dead letter cannot be redriven.
    NotRedrivable,
    /// The command was judged and refused.
    CommandRefused,
    /// The body did not arrive whole.
    BodyIncomplete,
    /// The body did not arrive in time.
    BodyTooSlow,
    /// The module cannot be a rule.
    ModuleRefused,
    /// The rule is not as the change expects.
    RuleConflict,
    /// The backtest cannot run now, or not for this version.
    BacktestConflict,
    /// The module, or the version, is not signed as its tenant wants it.
    SignatureRefused,
    /// The version gives no answer to most of what the tenant's rules are asked.
    DryRunRefused,
    /// The key lacks the scope that the call needs.
    Forbidden,
    /// The key or its tenant calls more often than it may.
    RateLimited,
    /// A key is not what the change of it expects.
    KeyConflict,
    /// The tenant has as many streams open as it may have.
    TooManyStreams,
    /// The body cannot be decompressed, or grows too much by it.
    BadCompression,
    /// The webhook endpoint does not take the change.
    EndpointRefused,
}

impl Code {
    /// Every code.
    pub const ALL: [Self; 34] = [
        Self::Unauthorized,
        Self::TooManyRequests,
        Self::NoSuchPath,
        Self::MethodNotAllowed,
        Self::NotFound,
        Self::MalformedJson,
        Self::InvalidFields,
        Self::IdempotencyKey,
        Self::IdempotencyConflict,
        Self::BodyTooLarge,
        Self::UnsupportedMediaType,
        Self::InvalidParameters,
        Self::NotReady,
        Self::Overloaded,
        Self::DiskFull,
        Self::Stopped,
        Self::Internal,
        Self::NotInForceYet,
        Self::SandboxRefused,
        Self::NotRedrivable,
        Self::CommandRefused,
        Self::BodyIncomplete,
        Self::BodyTooSlow,
        Self::ModuleRefused,
        Self::RuleConflict,
        Self::BacktestConflict,
        Self::SignatureRefused,
        Self::DryRunRefused,
        Self::Forbidden,
        Self::RateLimited,
        Self::KeyConflict,
        Self::TooManyStreams,
        Self::BadCompression,
        Self::EndpointRefused,
    ];

    /// Code, HTTP status and title.
    fn facts(self) -> (&'static str, u16, &'static str) {
        match self {
            Self::Unauthorized => ("TS0601", 401, "A valid API key is needed"),
            Self::TooManyRequests => ("TS0602", 429, "Too many requests without a valid API key"),
            Self::NoSuchPath => ("TS0603", 404, "No such path"),
            Self::MethodNotAllowed => ("TS0604", 405, "Method not allowed"),
            Self::NotFound => ("TS0605", 404, "Not found"),
            Self::MalformedJson => ("TS0606", 400, "The body is not valid JSON"),
            Self::InvalidFields => ("TS0607", 400, "Some fields cannot be taken"),
            Self::IdempotencyKey => ("TS0608", 400, "A usable Idempotency-Key is needed"),
            Self::IdempotencyConflict => ("TS0609", 422, "The Idempotency-Key was used with another body"),
            Self::BodyTooLarge => ("TS0610", 413, "The body is too large"),
            Self::UnsupportedMediaType => ("TS0611", 415, "Unsupported media type"),
            Self::InvalidParameters => ("TS0612", 400, "Some parameters cannot be taken"),
            Self::NotReady => ("TS0613", 503, "Not ready yet"),
            Self::Overloaded => ("TS0614", 503, "Overloaded"),
            Self::DiskFull => ("TS0615", 503, "The disk is full"),
            Self::Stopped => ("TS0616", 503, "The store has stopped"),
            Self::Internal => ("TS0617", 500, "An error of ours"),
            Self::NotInForceYet => ("TS0618", 503, "Accepted, but not in force yet"),
            Self::SandboxRefused => ("TS0619", 409, "The sandbox provider refuses"),
            Self::NotRedrivable => ("TS0620", 409, "The dead letter cannot be redriven"),
            Self::CommandRefused => ("TS0621", 409, "The command was refused"),
            Self::BodyIncomplete => ("TS0622", 400, "The body did not arrive whole"),
            Self::BodyTooSlow => ("TS0623", 408, "The body came too slowly"),
            Self::ModuleRefused => ("TS0663", 422, "The module cannot be a rule"),
            Self::RuleConflict => ("TS0664", 409, "The rule is not as the change expects"),
            Self::BacktestConflict => ("TS0665", 409, "The backtest cannot run"),
            Self::SignatureRefused => ("TS0667", 422, "The module is not signed as the tenant wants it"),
            Self::DryRunRefused => ("TS0668", 409, "The version fails on most recent inputs"),
            Self::Forbidden => ("TS0640", 403, "The API key may not do that"),
            Self::RateLimited => ("TS0641", 429, "Too many requests"),
            Self::KeyConflict => ("TS0642", 409, "The key is not as expected"),
            Self::TooManyStreams => ("TS0661", 429, "Too many open streams"),
            Self::BadCompression => ("TS0662", 400, "The body cannot be decompressed"),
            Self::EndpointRefused => ("TS0660", 409, "The webhook endpoint does not take this"),
        }
    }

    /// As clients see it, such as `TS0607`.
    pub fn as_str(self) -> &'static str {
        self.facts().0
    }

    /// The HTTP status.
    pub fn status(self) -> StatusCode {
        StatusCode::from_u16(self.facts().1).unwrap_or(StatusCode::INTERNAL_SERVER_ERROR)
    }

    /// A short title, the same for every occurrence.
    pub fn title(self) -> &'static str {
        self.facts().2
    }
}

/// What is wrong with one field, and what to do about it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, JsonSchema)]
pub struct FieldError {
    /// Where: `lines[3].quantity`, a header's or a parameter's name.
    pub field: String,
    /// What is wrong.
    pub message: String,
    /// What to send instead.
    pub fix: String,
}

impl FieldError {
    /// One error.
    pub fn new(field: impl Into<String>, message: impl Into<String>, fix: impl Into<String>) -> Self {
        Self { field: field.into(), message: message.into(), fix: fix.into() }
    }
}

/// A problem, as RFC 9457 has it.
#[derive(Clone, Debug, PartialEq)]
pub struct Problem {
    /// Which.
    pub code: Code,
    /// A sentence about this occurrence.
    pub detail: String,
    /// Per field.
    pub errors: Vec<FieldError>,
    /// When to come again, s.
    pub retry_after_seconds: Option<u32>,
}

/// A problem document (RFC 9457).
#[derive(Serialize, JsonSchema)]
#[schemars(rename = "Problem")]
pub(crate) struct Body<'a> {
    /// Where this code is explained.
    r#type: String,
    /// The same for every problem of this code.
    title: &'static str,
    /// The HTTP status.
    status: u16,
    /// A sentence about this occurrence.
    detail: &'a str,
    /// Stable, such as `TS0607`.
    code: &'static str,
    /// What is wrong per field, header or parameter, and what to send instead; all of it at once.
    #[serde(skip_serializing_if = "<[FieldError]>::is_empty")]
    errors: &'a [FieldError],
}

impl Serialize for Problem {
    fn serialize<S: serde::Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        Body {
            r#type: format!("/docs#{}", self.code.as_str()),
            title: self.code.title(),
            status: self.code.status().as_u16(),
            detail: &self.detail,
            code: self.code.as_str(),
            errors: &self.errors,
        }
        .serialize(serializer)
    }
}

impl Problem {
    /// A problem with a detail.
    pub fn new(code: Code, detail: impl Into<String>) -> Self {
        Self { code, detail: detail.into(), errors: Vec::new(), retry_after_seconds: None }
    }

    /// Says when to come again.
    #[must_use]
    pub fn retry_after(mut self, seconds: u32) -> Self {
        self.retry_after_seconds = Some(seconds);
        self
    }

    /// Fields of the body that cannot be taken.
    pub fn invalid_fields(errors: Vec<FieldError>) -> Self {
        let detail = match errors.as_slice() {
            [only] => format!("{}: {}", only.field, only.message),
            many => format!("{} fields cannot be taken; see errors", many.len()),
        };
        Self { errors, ..Self::new(Code::InvalidFields, detail) }
    }

    /// One field, header or parameter that the problem is about, and what to send instead.
    pub fn about(code: Code, field: &str, message: impl Into<String>, fix: impl Into<String>) -> Self {
        let error = FieldError::new(field, message, fix);
        Self { detail: format!("{field}: {}", error.message), errors: vec![error], ..Self::new(code, "") }
    }

    /// One query parameter or path segment that cannot be taken.
    pub fn parameter(field: &str, message: impl Into<String>, fix: impl Into<String>) -> Self {
        Self::about(Code::InvalidParameters, field, message, fix)
    }

    /// Query parameters that cannot be taken.
    pub fn parameters(errors: Vec<FieldError>) -> Self {
        let detail = match errors.as_slice() {
            [only] => format!("{}: {}", only.field, only.message),
            many => format!("{} parameters cannot be taken; see errors", many.len()),
        };
        Self { errors, ..Self::new(Code::InvalidParameters, detail) }
    }

    /// A resource that does not exist for this tenant.
    pub fn not_found(what: &str, id: &str) -> Self {
        Self::new(Code::NotFound, format!("there is no {what} {id:?}"))
    }
}

impl From<LogError> for Problem {
    fn from(error: LogError) -> Self {
        match &error {
            LogError::DiskFull { .. } => Self::new(Code::DiskFull, error.to_string()).retry_after(30),
            LogError::Unavailable(_) => {
                tracing::warn!(%error, "the log or the database does not answer");
                Self::new(Code::Stopped, error.to_string()).retry_after(2)
            }
            LogError::Stopped(_)
            | LogError::Io(_)
            | LogError::Fenced { .. }
            | LogError::LifeOver { .. }
            | LogError::Halted { .. } => {
                tracing::error!(%error, "the store refuses");
                Self::new(Code::Stopped, error.to_string()).retry_after(10)
            }
            LogError::NoSuchPartition(_) | LogError::OutOfRange { .. } => {
                Self::new(Code::InvalidParameters, error.to_string())
            }
            LogError::Corrupt { .. } => {
                tracing::error!(%error, "the store is corrupt");
                Self::new(Code::Internal, error.to_string())
            }
        }
    }
}

impl From<RegistryError> for Problem {
    fn from(error: RegistryError) -> Self {
        match error {
            RegistryError::Log(error) => error.into(),
            RegistryError::Encode { error, .. } => error.into(),
            RegistryError::NotFollowed { .. } => {
                tracing::warn!(%error, "a change is not in force yet");
                Self::new(Code::NotInForceYet, error.to_string()).retry_after(1)
            }
            RegistryError::FollowerStopped(_) | RegistryError::Randomness(_) => {
                tracing::error!(%error, "a change cannot be made");
                Self::new(Code::Stopped, error.to_string()).retry_after(10)
            }
        }
    }
}

impl From<CodecError> for Problem {
    fn from(error: CodecError) -> Self {
        tracing::error!(%error, "a value cannot be coded");
        Self::new(Code::Internal, error.to_string())
    }
}

impl IntoResponse for Problem {
    fn into_response(self) -> Response {
        let body = serde_json::to_vec(&self).unwrap_or_default();
        let mut response = (self.code.status(), body).into_response();
        let headers = response.headers_mut();
        headers.insert(header::CONTENT_TYPE, HeaderValue::from_static("application/problem+json"));
        if let Some(seconds) = self.retry_after_seconds {
            headers.insert(header::RETRY_AFTER, HeaderValue::from(seconds));
        }
        if self.code == Code::BodyTooSlow {
            // What is left of the body will not be read.
            headers.insert(header::CONNECTION, HeaderValue::from_static("close"));
        }
        if self.code == Code::Unauthorized {
            headers.insert(header::WWW_AUTHENTICATE, HeaderValue::from_static("Bearer realm=\"tillstream\""));
        }
        response
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_code_is_one_of_its_own_in_this_crates_range() {
        let mut seen: Vec<&str> = Code::ALL.iter().map(|it| it.as_str()).collect();
        assert!(seen.iter().all(|it| it.starts_with("TS06") && it.len() == 6));
        seen.dedup();
        assert_eq!(seen.len(), Code::ALL.len());
        assert!(Code::ALL.iter().all(|it| it.status().as_u16() >= 400));
    }

    #[test]
    fn a_problem_has_the_members_of_rfc_9457() {
        let problem = Problem::invalid_fields(vec![FieldError::new("a", "b", "c")]);
        let json = serde_json::to_value(&problem).unwrap();
        assert_eq!(json["type"], "/docs#TS0607");
        assert_eq!(json["status"], 400);
        assert_eq!(json["detail"], "a: b");
        assert_eq!(json["errors"][0]["fix"], "c");
    }
}
