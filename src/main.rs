//! The `mvm` command.
fn main() {}
