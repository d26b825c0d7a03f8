//! QMP and guest agent for tokio.
#![forbid(unsafe_code)]
