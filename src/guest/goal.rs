//! What a guest can be waited for: one list for the command and the supervisor.

use super::state::{Condition, GuestState};

/// A state that can be waited for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Goal {
    /// Its processors run.
    Running,
    /// The agent inside it answers.
    Agent,
    /// Its processors are stopped.
    Paused,
    /// It sleeps, its memory kept.
    Suspended,
    /// It is gone, and nobody starts it anew.
    Stopped,
    /// It has ended and is about to be started anew.
    Restarting,
}

impl Goal {
    /// Every one, with its word and what the help says of it.
    pub const ALL: &'static [(Self, &'static str, &'static str)] = &[
        (Self::Running, "running", "Its processors run"),
        (Self::Agent, "agent", "The agent inside it answers"),
        (
            Self::Paused,
            "paused",
            "Its processors are stopped by `mvm pause` or by QEMU",
        ),
        (Self::Suspended, "suspended", "It sleeps, its memory kept"),
        (
            Self::Stopped,
            "stopped",
            "It is gone, and mvm does not start it anew",
        ),
        (
            Self::Restarting,
            "restarting",
            "It has ended and is about to be started anew",
        ),
    ];

    /// The one of that word.
    pub fn of(word: &str) -> Option<Self> {
        let mut all = Self::ALL.iter();
        all.find(|(_, known, _)| *known == word)
            .map(|(goal, ..)| *goal)
    }

    /// Its word.
    pub fn as_str(self) -> &'static str {
        let mut all = Self::ALL.iter();
        all.find(|(goal, ..)| *goal == self)
            .map_or("", |(_, word, _)| word)
    }

    /// The words of all of them.
    pub fn words() -> Vec<&'static str> {
        Self::ALL.iter().map(|(_, word, _)| *word).collect()
    }

    /// Whether the state is the one, of a guest that a supervisor has.
    pub fn is_met(self, state: &GuestState, ended: bool) -> bool {
        match self {
            Self::Running => state.state == Condition::Running,
            Self::Agent => state.agent && !ended,
            Self::Paused => state.state == Condition::Paused,
            Self::Suspended => state.state == Condition::Suspended,
            Self::Stopped => ended && state.state == Condition::Stopped,
            Self::Restarting => state.state == Condition::Restarting,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_goal_has_a_word_of_its_own() {
        for (goal, word, help) in Goal::ALL {
            assert_eq!((Goal::of(word), goal.as_str()), (Some(*goal), *word));
            assert!(!help.is_empty());
        }
        assert_eq!(Goal::of("asleep"), None);
    }
}
