//! `mvm qmp`

use std::str::FromStr as _;

use clap::Args;
use mvm_qmp::{Event, Events, Qmp, QmpError};
use serde_json::{Map, Value, json};

use super::{Context, Failure, block_on, guests, monitor, output};
use crate::error::{ExitCode, did_you_mean};
use crate::units::Span;

/// Talk to a guest's QEMU in its own protocol
///
/// Arguments are `key=value`, where a value that is JSON is taken as such and anything else as text, or
/// one JSON object. What QEMU returns is printed as JSON.
#[derive(Debug, Args)]
#[command(after_help = "Examples:
  mvm qmp web query-status
  mvm qmp web set_link name=lan up=false
  mvm qmp web device_del '{\"id\": \"data\"}'
  mvm qmp web --events | jq -r .event
  socat - UNIX-CONNECT:$(mvm qmp web --socket)")]
pub(super) struct QmpArgs {
    /// The guest
    name: String,
    /// The command, as in `query-status`
    #[arg(required_unless_present_any = ["events", "socket"], conflicts_with_all = ["events", "socket"])]
    command: Option<String>,
    /// Its arguments
    #[arg(value_name = "KEY=VALUE|JSON", conflicts_with_all = ["events", "socket"])]
    arguments: Vec<String>,
    /// Print QEMU's events as they come, one JSON object a line, until the guest is gone
    #[arg(long, conflicts_with = "socket")]
    events: bool,
    /// Print the path of the socket that any QMP client can connect to
    #[arg(long)]
    socket: bool,
    /// How long QEMU may take to answer
    #[arg(long, default_value = "30s", value_name = "SPAN")]
    timeout: Span,
}

pub(super) fn run(args: &QmpArgs, context: &Context) -> Result<(), Failure> {
    if args.socket {
        let seen = guests::find_supervised(context, &args.name)?;
        output::print(&format!("{}\n", monitor::socket(&seen).display()))?;
        return Ok(());
    }
    let arguments = arguments(&args.arguments)?;
    block_on(async {
        let within = args.timeout.duration();
        let (qmp, events) = monitor::connect(&args.name, context, within).await?;
        match &args.command {
            Some(command) => {
                let value = call(&qmp, command, arguments).await?;
                output::print_json(&value)?;
                Ok(())
            }
            None => follow(events).await,
        }
    })
}

async fn call(qmp: &Qmp, command: &str, arguments: Option<Value>) -> Result<Value, Failure> {
    let error = match qmp.call(command, arguments).await {
        Ok(value) => return Ok(value),
        // QEMU acknowledges `quit` and goes; both may come together.
        Err(QmpError::Closed) if command == "quit" => return Ok(json!({})),
        Err(error) => error,
    };
    let mut report = monitor::report(&error);
    if error.class() == Some("CommandNotFound") {
        let known = qmp.call("query-commands", None).await.unwrap_or_default();
        let names = known.as_array().into_iter().flatten();
        let names = names.filter_map(|entry| entry["name"].as_str());
        if let Some(near) = did_you_mean(command, names) {
            report = report.hint(format!("did you mean `{near}`?"));
        }
    }
    Err(report.into())
}

async fn follow(mut events: Events) -> Result<(), Failure> {
    while let Some(event) = events.next().await {
        let mut line = as_qmp(&event).to_string();
        line.push('\n');
        if !output::stream(line.as_bytes())? {
            break;
        }
    }
    Ok(())
}

/// The event as QEMU wrote it.
fn as_qmp(event: &Event) -> Value {
    let mut value = json!({
        "event": event.name,
        "timestamp": {
            "seconds": event.timestamp.seconds,
            "microseconds": event.timestamp.microseconds,
        },
    });
    if event.data.as_object().is_none_or(|data| !data.is_empty()) {
        value["data"] = event.data.clone();
    }
    value
}

/// The arguments of a command: one JSON object, or `key=value` words.
pub(super) fn arguments(words: &[String]) -> Result<Option<Value>, Failure> {
    let wrong = |text: String| Failure::message(ExitCode::Usage, text);
    match words {
        [] => Ok(None),
        [text] if text.trim_start().starts_with('{') => Value::from_str(text)
            .map(Some)
            .map_err(|error| wrong(format!("the arguments are not JSON: {error}"))),
        words => {
            let mut arguments = Map::new();
            for word in words {
                let (key, text) = word
                    .split_once('=')
                    .ok_or_else(|| wrong(format!("`{word}` is not KEY=VALUE")))?;
                let value = Value::from_str(text).unwrap_or_else(|_| json!(text));
                insert(&mut arguments, key, value)
                    .ok_or_else(|| wrong(format!("`{key}` does not fit the keys before it")))?;
            }
            Ok(Some(Value::Object(arguments)))
        }
    }
}

/// Sets a key; dots lead into objects.
fn insert(arguments: &mut Map<String, Value>, key: &str, value: Value) -> Option<()> {
    match key.split_once('.') {
        Some((first, rest)) => {
            let inner = arguments.entry(first).or_insert_with(|| json!({}));
            insert(inner.as_object_mut()?, rest, value)
        }
        None => arguments
            .insert(key.to_owned(), value)
            .is_none()
            .then_some(()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read(words: &[&str]) -> Result<Option<Value>, Failure> {
        let words: Vec<String> = words.iter().map(ToString::to_string).collect();
        arguments(&words)
    }

    #[test]
    fn arguments_are_words_or_one_object() {
        assert_eq!(read(&[]).expect("none"), None);
        assert_eq!(
            read(&["id=data", "up=false", "n=3", "x.y=a b", "x.z=[1]"]).expect("words"),
            Some(json!({"id": "data", "up": false, "n": 3, "x": {"y": "a b", "z": [1]}}))
        );
        assert_eq!(
            read(&[r#"{"id": "data"}"#]).expect("an object"),
            Some(json!({"id": "data"}))
        );
        for bad in [&["{"][..], &["id"], &["a=1", "a=2"], &["a=1", "a.b=2"]] {
            let failure = read(bad).expect_err("it is wrong");
            assert_eq!(failure.exit_code(), ExitCode::Usage, "{bad:?}");
        }
    }
}
