//! `mvm send-key`

use std::time::Duration;

use clap::Args;
use mvm_qmp::Qmp;
use serde_json::{Value, json};

use super::{Context, Failure, block_on, guests, monitor, show};
use crate::error::{ExitCode, Report, did_you_mean};
use crate::guest::Condition;
use crate::machine::{BoardKind, Machine};
use crate::profile::schema::InputDevice;
use crate::units::Span;

/// How long QEMU may take to answer.
const WITHIN: Duration = Duration::from_secs(10);
/// The longest that keys are held: QEMU takes no other keys meanwhile.
const LONGEST: Duration = Duration::from_secs(10);

/// Press keys in a guest
///
/// Keys that are joined by `-` are pressed together, those of several words one word after the other. The
/// names are QEMU's (`QKeyCode`: a, 1, f1, ret, esc, tab, spc, delete, up, meta_l, …) and a few more that people
/// use: enter, space, del, win.
#[derive(Debug, Args)]
#[command(after_help = "Examples:
  mvm send-key web ctrl-alt-delete
  mvm send-key web ctrl-alt-f2
  mvm send-key web r o o t enter
  mvm send-key web --hold 2s esc")]
pub(super) struct SendKeyArgs {
    /// The guest
    name: String,
    /// The keys
    #[arg(required = true)]
    keys: Vec<String>,
    /// How long each is held
    #[arg(long, default_value = "100ms", value_name = "SPAN")]
    hold: Span,
}

pub(super) fn run(args: &SendKeyArgs, context: &Context) -> Result<(), Failure> {
    let hold = args.hold.duration();
    if hold > LONGEST {
        return Err(Failure::message(
            ExitCode::Usage,
            format!("`--hold {}` is longer than 10s", args.hold),
        ));
    }
    let seen = guests::find_supervised(context, &args.name)?;
    let state = seen.state.as_ref().map(|state| state.state);
    // QEMU throws away what comes while the guest's processors are stopped.
    if state.is_some_and(|state| !matches!(state, Condition::Running | Condition::Suspended)) {
        return Err(Report::new(
            ExitCode::Failed,
            format!(
                "guest `{}` is {}: no key reaches it",
                args.name,
                seen.state_name()
            ),
        )
        .hint(format!(
            "`mvm resume {}` lets a paused guest go on",
            args.name
        ))
        .into());
    }
    if show::plan(&seen).is_some_and(|plan| !has_keyboard(&plan.machine)) {
        return Err(Report::new(
            ExitCode::Failed,
            format!("guest `{}` has no keyboard", args.name),
        )
        .hint("write `[input.keyboard]` with `device = \"keyboard\"` into its profile")
        .into());
    }
    block_on(async {
        let (qmp, _) = monitor::connect(&args.name, context, WITHIN).await?;
        let known = codes(&qmp).await?;
        let mut presses = Vec::new();
        for word in &args.keys {
            presses.push(press(word, &known)?);
        }
        for press in presses {
            let keys: Vec<Value> = press
                .iter()
                .map(|code| json!({ "type": "qcode", "data": code }))
                .collect();
            let hold = u64::try_from(hold.as_millis()).unwrap_or(u64::MAX);
            let request = json!({ "keys": keys, "hold-time": hold });
            qmp.call("send-key", Some(request))
                .await
                .map_err(monitor::failure)?;
        }
        Ok(())
    })
}

/// Whether anything in the guest takes keys.
fn has_keyboard(machine: &Machine) -> bool {
    let own = matches!(machine.board.kind, BoardKind::Q35 | BoardKind::Pc);
    let added = machine.desktop.inputs.iter();
    // What QEMU was given beside mvm's own devices may be one.
    own || !machine.qemu_args.is_empty()
        || added
            .into_iter()
            .any(|input| input.device == InputDevice::Keyboard)
}

/// The codes that this QEMU knows, from its own schema: `send-key` → its keys → a union → its `qcode`.
async fn codes(qmp: &Qmp) -> Result<Vec<String>, Failure> {
    let schema = qmp
        .call("query-qmp-schema", None)
        .await
        .map_err(monitor::failure)?;
    codes_of(&schema).ok_or_else(|| {
        Failure::message(
            ExitCode::Failed,
            "this QEMU does not tell which keys it knows",
        )
    })
}

fn codes_of(schema: &Value) -> Option<Vec<String>> {
    let entity = |name: &Value| schema.as_array()?.iter().find(|one| one["name"] == *name);
    let member = |of: &Value, name: &str| {
        let found = of["members"]
            .as_array()?
            .iter()
            .find(|one| one["name"] == name)?;
        entity(&found["type"])
    };
    let command = entity(&json!("send-key"))?;
    let keys = member(entity(&command["arg-type"])?, "keys")?;
    let key = entity(&keys["element-type"])?;
    let variants = key["variants"].as_array()?;
    let qcode = variants.iter().find(|variant| variant["case"] == "qcode")?;
    let codes = member(entity(&qcode["type"])?, "data")?;
    // Newer schemas have members with features, older ones values.
    let names = codes["members"].as_array().map(|members| {
        members
            .iter()
            .filter_map(|one| one["name"].as_str().map(str::to_owned))
            .collect()
    });
    names.or_else(|| {
        let values = codes["values"].as_array()?;
        Some(
            values
                .iter()
                .filter_map(|one| one.as_str().map(str::to_owned))
                .collect(),
        )
    })
}

/// The codes of keys that are pressed together.
fn press(word: &str, known: &[String]) -> Result<Vec<String>, Report> {
    let names: Vec<&str> = match word {
        "-" => vec!["minus"],
        word => word.split('-').collect(),
    };
    names
        .into_iter()
        .map(|name| {
            let small = name.to_lowercase();
            let code = match small.as_str() {
                "enter" | "return" => "ret",
                "space" => "spc",
                "del" => "delete",
                "ins" => "insert",
                "escape" => "esc",
                "win" | "super" | "meta" => "meta_l",
                "pageup" => "pgup",
                "pagedown" => "pgdn",
                other => other,
            };
            // QEMU's schema ends with what stands for no key.
            if known.iter().any(|one| one == code) && code != "unmapped" {
                return Ok(code.to_owned());
            }
            let shown: String = name.chars().take(40).collect();
            let report = Report::new(ExitCode::Usage, format!("QEMU knows no key `{shown}`"));
            Err(match did_you_mean(code, known.iter().map(String::as_str)) {
                Some(near) => report.hint(format!("did you mean `{near}`?")),
                None => report.hint(
                    "letters and digits are their own names; `mvm send-key --help` names others",
                ),
            })
        })
        .collect()
}

#[cfg(test)]
#[expect(clippy::unwrap_used, reason = "tests")]
mod tests {
    use super::*;

    #[test]
    fn keys_are_found_in_the_schema_of_either_age() {
        let schema = |codes: Value| {
            json!([
                { "name": "send-key", "meta-type": "command", "arg-type": "1" },
                { "name": "1", "members": [{ "name": "keys", "type": "[2]" }] },
                { "name": "[2]", "element-type": "2" },
                { "name": "2", "variants": [{ "case": "number", "type": "9" }, { "case": "qcode", "type": "3" }] },
                { "name": "3", "members": [{ "name": "data", "type": "4" }] },
                codes,
            ])
        };
        let new = json!({ "name": "4", "values": ["old"], "members": [{ "name": "ctrl" }, { "name": "ret" }] });
        assert_eq!(codes_of(&schema(new)).unwrap(), ["ctrl", "ret"]);
        let old = json!({ "name": "4", "values": ["ctrl", "delete"] });
        assert_eq!(codes_of(&schema(old)).unwrap(), ["ctrl", "delete"]);
        assert_eq!(codes_of(&json!([])), None);
    }

    #[test]
    fn words_become_keys() {
        let known: Vec<String> = ["ctrl", "alt", "delete", "ret", "minus", "a", "meta_l"]
            .map(str::to_owned)
            .to_vec();
        assert_eq!(
            press("ctrl-alt-Del", &known).unwrap(),
            ["ctrl", "alt", "delete"]
        );
        assert_eq!(press("-", &known).unwrap(), ["minus"]);
        assert_eq!(press("win-enter", &known).unwrap(), ["meta_l", "ret"]);
        let wrong = press("ctl-a", &known).unwrap_err();
        assert_eq!(wrong.chain[0], "QEMU knows no key `ctl`");
        assert_eq!(wrong.hints[0], "did you mean `ctrl`?");
        assert!(press("ctrl-", &known).is_err());
    }
}
