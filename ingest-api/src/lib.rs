//! The HTTP door: request, validation, command, log; queries.
