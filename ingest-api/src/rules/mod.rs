//! `/v1/rules`: a tenant's own rules, from an uploaded module to an active one and back.

pub(crate) mod backtests;
mod calls;
mod view;

pub(crate) use calls::{
    activate, activate_call, get, get_call, list, list_call, retire, retire_call, roll_back, roll_back_call,
    upload, upload_call, versions, versions_call,
};
