//! Checked views and emitters of headers, and checksums. No policy.
pub mod ethernet;
