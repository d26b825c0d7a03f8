//! The user as whom root's guests run.

use super::{Finding, Level, finding};
use crate::host::HostFacts;
use crate::host::users::Asked;

/// Whether the user whom `mvm.toml` names is there, and may use KVM.
pub(super) fn user(facts: &HostFacts) -> Option<Finding> {
    let Asked { name, found } = facts.users.asked.as_ref()?;
    let say = |level, text: String| finding("security-user", level, text);
    if found.is_none() {
        let text = format!(
            "`mvm.toml` lets guests run as the user `{name}`, whom this host does not know"
        );
        return Some(say(Level::Warn, text).fix(format!(
            "`useradd --system --user-group --shell /usr/sbin/nologin {name}`"
        )));
    }
    if facts.users.kvm_group.is_none() && !facts.users.kvm_for_all {
        let text = format!("guests run as the user `{name}`, and only root may open /dev/kvm");
        return Some(
            say(Level::Warn, text)
                .fix("`chgrp kvm /dev/kvm && chmod 660 /dev/kvm`: mvm adds that group by itself"),
        );
    }
    Some(say(Level::Ok, format!("guests run as the user `{name}`")))
}
