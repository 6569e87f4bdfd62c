//! Effects after the commit: the executor, the sandbox payment provider.
