//! The task kinds: stages chained over one key.
