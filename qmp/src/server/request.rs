//! What a client asks for, and the answers QEMU itself gives to what is no request.

use std::{borrow::Cow, fmt};

use serde::{
    Deserialize, Deserializer,
    de::{MapAccess, Visitor},
};
use serde_json::{Value, json, value::RawValue};

/// An error reply.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Refusal {
    /// QEMU's error class.
    pub class: &'static str,
    /// Why.
    pub desc: String,
}

impl Refusal {
    /// A `GenericError`, the class of nearly all of QEMU's.
    #[must_use]
    pub fn generic(desc: impl Into<String>) -> Self {
        Self {
            class: "GenericError",
            desc: desc.into(),
        }
    }

    pub(super) fn not_found(desc: &str) -> Self {
        Self {
            class: "CommandNotFound",
            desc: desc.to_owned(),
        }
    }

    pub(super) fn json(&self) -> String {
        json!({ "class": self.class, "desc": self.desc }).to_string()
    }
}

/// A well-formed request.
#[derive(Debug, PartialEq)]
pub(super) struct Call {
    pub(super) name: String,
    /// A JSON object, as text.
    pub(super) arguments: Option<String>,
    pub(super) oob: bool,
}

#[derive(Deserialize, PartialEq, Eq)]
#[serde(transparent)]
struct Key<'a>(#[serde(borrow)] Cow<'a, str>);

#[derive(Default)]
struct Members<'a> {
    execute: Option<&'a RawValue>,
    exec_oob: Option<&'a RawValue>,
    arguments: Option<&'a RawValue>,
    id: Option<&'a RawValue>,
    unexpected: Option<String>,
    twice: bool,
}

impl<'de: 'a, 'a> Deserialize<'de> for Members<'a> {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct Read;
        impl<'de> Visitor<'de> for Read {
            type Value = Members<'de>;

            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("a request")
            }

            fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Self::Value, A::Error> {
                let mut members = Members::default();
                while let Some(Key(key)) = map.next_key()? {
                    let value = Some(map.next_value()?);
                    let slot = match &*key {
                        "execute" => &mut members.execute,
                        "exec-oob" => &mut members.exec_oob,
                        "arguments" => &mut members.arguments,
                        "id" => &mut members.id,
                        _ => {
                            members.unexpected.get_or_insert(key.into_owned());
                            continue;
                        }
                    };
                    members.twice |= slot.is_some();
                    *slot = value;
                }
                Ok(members)
            }
        }
        deserializer.deserialize_map(Read)
    }
}

/// Takes a message apart: its id, to be echoed, and the request.
pub(super) fn parse(text: &[u8]) -> (Option<String>, Result<Call, Refusal>) {
    if text.first() != Some(&b'{') {
        return (
            None,
            Err(Refusal::generic("QMP input must be a JSON object")),
        );
    }
    let members: Members<'_> = match serde_json::from_slice(text) {
        Ok(members) => members,
        Err(e) => {
            return (
                None,
                Err(Refusal::generic(format!("JSON parse error, {e}"))),
            );
        }
    };
    if members.twice {
        return (
            None,
            Err(Refusal::generic("JSON parse error, duplicate key")),
        );
    }
    let id = members.id.map(|id| id.get().to_owned());
    (id, call(&members))
}

fn call(members: &Members<'_>) -> Result<Call, Refusal> {
    let fail = |desc: String| Err(Refusal::generic(desc));
    if let Some(name) = &members.unexpected {
        return fail(format!("QMP input member '{name}' is unexpected"));
    }
    let (key, name, oob) = match (members.execute, members.exec_oob) {
        (Some(_), Some(_)) => {
            return fail("QMP input member 'execute' clashes with 'exec-oob'".into());
        }
        (Some(name), None) => ("execute", name, false),
        (None, Some(name)) => ("exec-oob", name, true),
        (None, None) => return fail("QMP input lacks member 'execute'".into()),
    };
    let Ok(name) = serde_json::from_str::<String>(name.get()) else {
        return fail(format!("QMP input member '{key}' must be a string"));
    };
    let arguments = members.arguments.map(RawValue::get);
    if arguments.is_some_and(|text| !text.starts_with('{')) {
        return fail("QMP input member 'arguments' must be an object".into());
    }
    let mut arguments = arguments.map(str::to_owned);
    if oob {
        if !name.bytes().all(|b| b.is_ascii_graphic()) {
            return Err(Refusal::not_found(&format!(
                "The command {name} has not been found"
            )));
        }
        arguments = canonical(arguments)?;
    }
    Ok(Call {
        name,
        arguments,
        oob,
    })
}

/// Arguments that QEMU's parser is sure to take. What it does not take it answers without an id
/// and in the turn of in-band commands, so that an out-of-band one could not be told from those.
fn canonical(arguments: Option<String>) -> Result<Option<String>, Refusal> {
    let Some(text) = arguments else {
        return Ok(None);
    };
    let fail = || Refusal::generic("JSON parse error, arguments that no out-of-band command takes");
    let value: Value = serde_json::from_str(&text).map_err(|_| fail())?;
    let text = value.to_string();
    let no_character = |c: char| matches!(u32::from(c) & 0xffff, 0xfffe | 0xffff | 0xfdd0..=0xfdef);
    if text.contains(no_character) || text.contains("\\u0000") {
        Err(fail())
    } else {
        Ok(Some(text))
    }
}

/// A reply line: `member` is `return` or `error`.
pub(super) fn reply(member: &str, body: &str, id: Option<&str>) -> Vec<u8> {
    let parts = [
        "{\"",
        member,
        "\": ",
        body,
        if id.is_some() { ", \"id\": " } else { "" },
        id.unwrap_or(""),
        "}\r\n",
    ];
    parts.concat().into_bytes()
}

#[cfg(test)]
#[expect(clippy::unwrap_used, reason = "tests")]
mod tests {
    use super::*;

    fn refusal(text: &str) -> String {
        parse(text.as_bytes()).1.unwrap_err().desc
    }

    #[test]
    fn requests_keep_their_arguments_and_ids_to_the_letter() {
        let (id, call) = parse(
            br#"{"id": {"a": [1.50, null]}, "arguments": {"x":1e2}, "execute": "st\u006fp"}"#,
        );
        assert_eq!(id.unwrap(), r#"{"a": [1.50, null]}"#);
        let arguments = Some(r#"{"x":1e2}"#.to_owned());
        assert_eq!(
            call.unwrap(),
            Call {
                name: "stop".into(),
                arguments,
                oob: false
            }
        );
        assert_eq!(parse(br#"{"execute":"x","id":null}"#).0.unwrap(), "null");
        assert_eq!(parse(br#"{"execute":"x"}"#).0, None);
    }

    #[test]
    fn what_is_no_request_gets_qemus_own_answers() {
        assert_eq!(refusal("[]"), "QMP input must be a JSON object");
        assert_eq!(refusal("{}"), "QMP input lacks member 'execute'");
        assert_eq!(
            refusal(r#"{"execute":"x","foo":1}"#),
            "QMP input member 'foo' is unexpected"
        );
        assert_eq!(
            refusal(r#"{"execute":5}"#),
            "QMP input member 'execute' must be a string"
        );
        assert_eq!(
            refusal(r#"{"execute":"x","exec-oob":"y"}"#),
            "QMP input member 'execute' clashes with 'exec-oob'"
        );
        assert_eq!(
            refusal(r#"{"execute":"x","arguments":5}"#),
            "QMP input member 'arguments' must be an object"
        );
        assert_eq!(
            refusal(r#"{"execute":"x","id":1,"id":2}"#),
            "JSON parse error, duplicate key"
        );
        assert!(refusal(r#"{"execute" 5}"#).starts_with("JSON parse error"));
        assert_eq!(parse(br#"{"execute":5,"id":"i"}"#).0.unwrap(), "\"i\"");
    }

    #[test]
    fn out_of_band_arguments_are_what_qemu_takes_for_sure() {
        let (_, call) = parse(br#"{"exec-oob": "yank", "arguments": {"a": 1, "a": 2}}"#);
        assert_eq!(call.unwrap().arguments.unwrap(), r#"{"a":2}"#);
        assert!(
            refusal("{\"exec-oob\": \"yank\", \"arguments\": {\"a\": \"\u{ffff}\"}}")
                .contains("out-of-band")
        );
    }

    #[test]
    fn replies() {
        assert_eq!(
            reply("return", "{}", Some("[1]")),
            b"{\"return\": {}, \"id\": [1]}\r\n"
        );
        assert_eq!(reply("error", "{}", None), b"{\"error\": {}}\r\n");
    }
}
