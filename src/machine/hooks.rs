//! Programs that run at points of a guest's life.

use std::path::Path;
use std::time::Duration;

use serde::{Deserialize, Serialize};

use super::Machine;
use super::error::ResolveError;
use super::files::regular;
use crate::error::{ExitCode, Hint};
use crate::hook::Hook;
use crate::host::Images;
use crate::ids::Id;
use crate::profile::schema::{HookFailure, HookWhen, Layer};
use crate::units::Span;

/// How long one may take when the profile does not say.
const TIMEOUT: Span = Span::secs(30);
/// How long one may take at most.
const LONGEST: Span = Span::secs(600);

/// A program and when it runs.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct HookRule {
    /// Its name.
    pub id: Id,
    /// When.
    pub when: HookWhen,
    /// The program and its arguments.
    pub command: Vec<String>,
    /// How long it may take.
    pub timeout: Span,
    /// Whether its failure is the guest's.
    pub required: bool,
}

/// A hook that cannot be.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum HookError {
    /// Something is not said.
    #[error("hook `{id}` has no `{key}`")]
    Missing {
        /// The hook.
        id: Id,
        /// The key.
        key: &'static str,
    },
    /// It would depend on where mvm was started.
    #[error("hook `{id}`: {program:?} is neither an absolute path nor a name without `/`")]
    Relative {
        /// The hook.
        id: Id,
        /// The program.
        program: String,
    },
    /// There is nothing left that could fail.
    #[error("hook `{id}`: `on-failure` is for `pre-start` and `started`, not for `{when}`")]
    TooLate {
        /// The hook.
        id: Id,
        /// When it runs.
        when: HookWhen,
    },
    /// It has no time.
    #[error("hook `{0}`: `timeout` is zero")]
    NoTime(Id),
    /// Nothing else of the guest happens meanwhile.
    #[error("hook `{0}`: `timeout` is longer than {LONGEST}")]
    TooLong(Id),
}

impl Hint for HookError {
    fn hints(&self) -> Vec<String> {
        match self {
            Self::Missing { id, key: "command" } => {
                vec![format!(
                    "`hook.{id}.command = [\"/path/to/program\", \"argument\"]`"
                )]
            }
            Self::Missing { id, .. } => vec![format!("`hook.{id}.when = \"pre-start\"`, for one")],
            _ => Vec::new(),
        }
    }

    fn exit_code(&self) -> ExitCode {
        ExitCode::Profile
    }
}

/// The programs that a profile names by their paths: they are looked for.
pub(super) fn wanted(layer: &Layer) -> impl Iterator<Item = &str> {
    let hooks = layer.hook.iter().flat_map(|hooks| hooks.values());
    let hooks = hooks.filter(|hook| hook.enabled != Some(false));
    let programs = hooks.filter_map(|hook| hook.command.as_ref()?.first());
    programs
        .map(String::as_str)
        .filter(|program| Path::new(program).is_absolute())
}

/// The hooks, in the order of their names.
pub(super) fn hooks(layer: &Layer, images: &Images) -> Result<Vec<HookRule>, ResolveError> {
    let mut hooks = Vec::new();
    for (id, table) in layer.hook.iter().flatten() {
        if table.enabled == Some(false) {
            continue;
        }
        let missing = |key| HookError::Missing {
            id: id.clone(),
            key,
        };
        let when = table.when.ok_or_else(|| missing("when"))?;
        let command = table.command.clone().unwrap_or_default();
        let program = command.first().filter(|program| !program.is_empty());
        let program = program.ok_or_else(|| missing("command"))?;
        if Path::new(program).is_absolute() {
            regular(
                images,
                &format!("hook `{id}`"),
                &format!("`hook.{id}.command`"),
                program,
            )?;
        } else if program.contains('/') {
            return Err(HookError::Relative {
                id: id.clone(),
                program: program.chars().take(200).collect(),
            }
            .into());
        }
        let may_fail = matches!(when, HookWhen::PreStart | HookWhen::Started);
        if table.on_failure.is_some() && !may_fail {
            return Err(HookError::TooLate {
                id: id.clone(),
                when,
            }
            .into());
        }
        let timeout = table.timeout.unwrap_or(TIMEOUT);
        if timeout.duration() == Duration::ZERO {
            return Err(HookError::NoTime(id.clone()).into());
        }
        if timeout.duration() > LONGEST.duration() {
            return Err(HookError::TooLong(id.clone()).into());
        }
        let default = match when {
            HookWhen::PreStart => HookFailure::Fail,
            _ => HookFailure::Continue,
        };
        hooks.push(HookRule {
            id: id.clone(),
            when,
            command,
            timeout,
            required: table.on_failure.unwrap_or(default) == HookFailure::Fail,
        });
    }
    Ok(hooks)
}

impl Machine {
    /// The programs that run then, in the order of their names.
    pub fn hooks_at(&self, when: HookWhen) -> Vec<Hook> {
        let hooks = self.hooks.iter().filter(|hook| hook.when == when);
        hooks.map(|rule| self.hook(rule)).collect()
    }

    fn hook(&self, rule: &HookRule) -> Hook {
        let path = |path: &Path| path.to_string_lossy().into_owned();
        let env = [
            ("MVM_GUEST", self.name.to_string()),
            ("MVM_HOOK", rule.id.to_string()),
            ("MVM_WHEN", rule.when.to_string()),
            ("MVM_UUID", self.uuid.to_string()),
            ("MVM_RUN_DIR", path(&self.run_dir)),
            ("MVM_STATE_DIR", path(&self.state_dir)),
        ];
        Hook {
            name: rule.id.to_string(),
            when: rule.when.to_string(),
            command: rule.command.clone(),
            timeout_ms: u64::try_from(rule.timeout.duration().as_millis()).unwrap_or(u64::MAX),
            required: rule.required,
            env: env.map(|(name, value)| (name.to_owned(), value)).to_vec(),
            run_dir: self.run_dir.clone(),
            log: self.state_dir.join("log/hooks.log"),
        }
    }
}
