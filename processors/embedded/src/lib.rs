//! Log and state on one fjall database with a group-commit thread.
