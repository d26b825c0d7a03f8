//! mvm.
