//! Payment stage: a pure function from facts to a decision.
