//! `/v1/rules`: a tenant's own rules, from an uploaded module over trials to an active one and back.

pub(crate) mod backtests;
mod calls;
mod frame;
mod rollout;
mod samples;
mod settings;
pub(crate) mod signing;
mod trial_view;
mod view;

pub(crate) use calls::{
    activate, activate_call, get, get_call, list, list_call, retire, retire_call, roll_back, roll_back_call,
    upload, upload_call, versions, versions_call,
};
pub(crate) use rollout::{canary, canary_call, configure, configure_call, shadow, shadow_call};
pub(crate) use samples::{samples, samples_call};
