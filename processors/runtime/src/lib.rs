//! The shell: poll, load, rule, decide, commit, release effects.
