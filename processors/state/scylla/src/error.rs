//! What the driver's errors mean to the protocol: another try may help, or somebody has to look.

use scylla::errors::{
    ConnectionError, ConnectionPoolError, ConnectionSetupRequestErrorKind, DbError, ExecutionError,
    MetadataError, NewSessionError, PrepareError, RequestAttemptError,
};
use std::fmt::Display;
use tillstream_log::LogError;

/// No connection, or no answer in time.
pub(crate) fn unreachable(doing: &str, error: impl Display) -> LogError {
    LogError::Unavailable(format!("TS0350: {doing}: the database does not answer: {error}"))
}

/// The database answers that it cannot now.
fn unable(doing: &str, error: impl Display) -> LogError {
    LogError::Unavailable(format!("TS0351: {doing}: the database cannot do it now: {error}"))
}

/// A login or a right is missing.
fn forbidden(doing: &str, error: impl Display) -> LogError {
    LogError::Stopped(format!("TS0352: {doing}: the database refuses this user: {error}"))
}

/// The statement does not fit what is there.
fn refused(doing: &str, error: impl Display) -> LogError {
    LogError::Stopped(format!("TS0353: {doing}: the database refuses the statement: {error}"))
}

/// What came back is not what was asked for.
pub(crate) fn unreadable(doing: &str, error: impl Display) -> LogError {
    LogError::Stopped(format!("TS0354: {doing}: the database's answer cannot be read: {error}"))
}

/// For a failed request.
pub(crate) fn of_request(doing: &str, error: &ExecutionError) -> LogError {
    match error {
        ExecutionError::LastAttemptError(attempt) => of_attempt(doing, attempt),
        ExecutionError::PrepareError(prepare) => of_prepare(doing, prepare),
        ExecutionError::BadQuery(_) | ExecutionError::UseKeyspaceError(_) => refused(doing, error),
        // A login that worked once and fails now: a node that is starting answers so, too.
        _ => unreachable(doing, error),
    }
}

/// For a failed preparation.
pub(crate) fn of_prepare(doing: &str, error: &PrepareError) -> LogError {
    match error {
        PrepareError::AllAttemptsFailed { first_attempt } => of_attempt(doing, first_attempt),
        PrepareError::PreparedStatementIdsMismatch => unable(doing, error),
        _ => unreachable(doing, error),
    }
}

/// For a start that failed.
pub(crate) fn of_start(doing: &str, error: &NewSessionError) -> LogError {
    match error {
        NewSessionError::IllegalConfig(_) | NewSessionError::EmptyKnownNodesList => {
            crate::settings::unusable(error.to_string())
        }
        NewSessionError::MetadataError(MetadataError::ConnectionPoolError(ConnectionPoolError::Broken {
            last_connection_error: ConnectionError::ConnectionSetupRequestError(setup),
        })) => match &setup.error {
            ConnectionSetupRequestErrorKind::DbError(DbError::AuthenticationError, _)
            | ConnectionSetupRequestErrorKind::MissingAuthentication => forbidden(doing, error),
            _ => unreachable(doing, error),
        },
        _ => unreachable(doing, error),
    }
}

fn of_attempt(doing: &str, error: &RequestAttemptError) -> LogError {
    match error {
        RequestAttemptError::DbError(answer, _) => match answer {
            DbError::Unavailable { .. }
            | DbError::Overloaded
            | DbError::IsBootstrapping
            | DbError::TruncateError
            | DbError::ReadTimeout { .. }
            | DbError::WriteTimeout { .. }
            | DbError::ReadFailure { .. }
            | DbError::WriteFailure { .. }
            | DbError::Unprepared { .. }
            | DbError::ServerError
            | DbError::RateLimitReached { .. } => unable(doing, error),
            DbError::AuthenticationError | DbError::Unauthorized => forbidden(doing, error),
            _ => refused(doing, error),
        },
        RequestAttemptError::UnableToAllocStreamId | RequestAttemptError::BrokenConnectionError(_) => {
            unreachable(doing, error)
        }
        RequestAttemptError::SerializationError(_) | RequestAttemptError::CqlRequestSerialization(_) => {
            refused(doing, error)
        }
        _ => unreadable(doing, error),
    }
}

/// Whether a read walked over more deleted rows than the database allows (or a replica failed): a smaller one may pass.
pub(crate) fn is_too_much(error: &ExecutionError) -> bool {
    matches!(
        error,
        ExecutionError::LastAttemptError(RequestAttemptError::DbError(DbError::ReadFailure { .. }, _))
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    fn answered(answer: DbError) -> LogError {
        let attempt = RequestAttemptError::DbError(answer, "text".into());
        of_request("reading", &ExecutionError::LastAttemptError(attempt))
    }

    #[test]
    fn what_may_mend_is_unavailable_and_the_rest_stops() {
        let mends = [
            answered(DbError::Overloaded),
            answered(DbError::IsBootstrapping),
            answered(DbError::ServerError),
            of_request("reading", &ExecutionError::EmptyPlan),
            of_request("reading", &ExecutionError::RequestTimeout(std::time::Duration::from_secs(1))),
            of_request(
                "reading",
                &ExecutionError::LastAttemptError(RequestAttemptError::UnableToAllocStreamId),
            ),
            of_request("reading", &ExecutionError::ConnectionPoolError(ConnectionPoolError::Initializing)),
        ];
        for error in mends {
            assert!(matches!(error, LogError::Unavailable(_)), "{error}");
        }
        let stays = [
            (answered(DbError::SyntaxError), "TS0353"),
            (answered(DbError::Invalid), "TS0353"),
            (answered(DbError::Unauthorized), "TS0352"),
            (
                of_request(
                    "reading",
                    &ExecutionError::LastAttemptError(RequestAttemptError::NonfinishedPagingState),
                ),
                "TS0354",
            ),
        ];
        for (error, code) in stays {
            assert!(matches!(&error, LogError::Stopped(text) if text.starts_with(code)), "{error}");
        }
    }
}
