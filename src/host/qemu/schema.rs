//! What mvm reads from `query-qmp-schema`: which names QEMU was built with.

use std::collections::HashMap;

use serde::Deserialize;

use super::names::Names;

/// One entity of the schema, with the fields of all kinds. Types have numbers for names, and the
/// numbers differ from build to build: only the way from a command to its types is stable.
#[derive(Deserialize)]
#[serde(rename_all = "kebab-case")]
struct Entity {
    name: String,
    meta_type: String,
    #[serde(default)]
    members: Vec<Member>,
    #[serde(default)]
    variants: Vec<Variant>,
    /// Enumerations had these before 6.2, and still have them beside `members`.
    #[serde(default)]
    values: Vec<String>,
    #[serde(default)]
    features: Vec<String>,
    tag: Option<String>,
    arg_type: Option<String>,
    ret_type: Option<String>,
    element_type: Option<String>,
}

#[derive(Deserialize)]
struct Member {
    /// The members of an alternate have none.
    #[serde(default)]
    name: String,
    #[serde(default, rename = "type")]
    type_: String,
}

#[derive(Deserialize)]
struct Variant {
    case: String,
    #[serde(rename = "type")]
    type_: String,
}

/// The schema, with look-ups.
pub(super) struct Schema(HashMap<String, Entity>);

impl Schema {
    /// From the command's reply.
    pub(super) fn parse(reply: serde_json::Value) -> Result<Self, serde_json::Error> {
        let entities: Vec<Entity> = serde_json::from_value(reply)?;
        Ok(Self(
            entities.into_iter().map(|e| (e.name.clone(), e)).collect(),
        ))
    }

    /// All commands.
    pub(super) fn commands(&self) -> Names {
        self.0
            .values()
            .filter(|e| e.meta_type == "command")
            .map(|e| e.name.as_str())
            .collect()
    }

    /// Whether a command has a feature.
    pub(super) fn has_feature(&self, command: &str, feature: &str) -> bool {
        self.0
            .get(command)
            .is_some_and(|e| e.features.iter().any(|f| f == feature))
    }

    /// The kinds that a command's argument comes in, as in the types of `netdev_add`.
    pub(super) fn argument_kinds(&self, command: &str) -> Names {
        self.argument(command)
            .map(|e| self.kinds(e))
            .unwrap_or_default()
    }

    /// The options of a command's argument, common ones and `KIND.OPTION`.
    pub(super) fn argument_options(&self, command: &str) -> Names {
        self.argument(command)
            .map(|e| self.options(e))
            .unwrap_or_default()
    }

    /// The kinds of what a command returns, or of the elements of the list that it returns.
    pub(super) fn result_kinds(&self, command: &str) -> Names {
        self.result(command)
            .map(|e| self.kinds(e))
            .unwrap_or_default()
    }

    /// The options of what a command returns.
    pub(super) fn result_options(&self, command: &str) -> Names {
        self.result(command)
            .map(|e| self.options(e))
            .unwrap_or_default()
    }

    /// The values that an option of one kind of a command's argument can have.
    pub(super) fn argument_values(&self, command: &str, kind: &str, option: &str) -> Names {
        let found = self.argument(command).and_then(|argument| {
            let variant = argument.variants.iter().find(|v| v.case == kind)?;
            let object = self.0.get(&variant.type_)?;
            let member = object.members.iter().find(|m| m.name == option)?;
            self.0.get(&member.type_)
        });
        found.map(enum_values).unwrap_or_default()
    }

    fn argument(&self, command: &str) -> Option<&Entity> {
        self.0.get(self.0.get(command)?.arg_type.as_ref()?)
    }

    fn result(&self, command: &str) -> Option<&Entity> {
        let entity = self.0.get(self.0.get(command)?.ret_type.as_ref()?)?;
        match &entity.element_type {
            Some(element) => self.0.get(element),
            None => Some(entity),
        }
    }

    fn kinds(&self, object: &Entity) -> Names {
        let tag = object
            .tag
            .as_ref()
            .and_then(|tag| object.members.iter().find(|m| m.name == *tag))
            .and_then(|member| self.0.get(&member.type_));
        tag.map(enum_values).unwrap_or_default()
    }

    fn options(&self, object: &Entity) -> Names {
        let common = object.members.iter().map(|m| m.name.clone());
        let special = object.variants.iter().flat_map(|variant| {
            let members = self.0.get(&variant.type_).map(|e| e.members.as_slice());
            members
                .unwrap_or_default()
                .iter()
                .map(|m| format!("{}.{}", variant.case, m.name))
        });
        common.chain(special).collect()
    }
}

fn enum_values(entity: &Entity) -> Names {
    if entity.members.is_empty() {
        entity.values.iter().map(String::as_str).collect()
    } else {
        entity.members.iter().map(|m| m.name.as_str()).collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn follows_types_by_number() {
        let schema = Schema::parse(json!([
            { "name": "netdev_add", "meta-type": "command", "arg-type": "1", "ret-type": "0" },
            { "name": "1", "meta-type": "object", "tag": "type",
              "members": [{ "name": "id", "type": "str" }, { "name": "type", "type": "2" }],
              "variants": [{ "case": "user", "type": "3" }, { "case": "none", "type": "0" }] },
            { "name": "2", "meta-type": "enum", "values": ["none", "user"] },
            { "name": "3", "meta-type": "object", "members": [{ "name": "hostfwd", "type": "str" }, { "name": "aio", "type": "4" }] },
            { "name": "4", "meta-type": "enum", "values": ["old"], "members": [{ "name": "threads" }] },
            { "name": "query-x", "meta-type": "command", "features": ["f"], "ret-type": "[1]" },
            { "name": "[1]", "meta-type": "array", "element-type": "1" },
            { "name": "SOMETHING_NEW", "meta-type": "comet", "orbit": 7 },
        ]))
        .expect("a schema");
        let list = |n: Names| n.iter().map(str::to_owned).collect::<Vec<_>>();
        assert_eq!(list(schema.commands()), ["netdev_add", "query-x"]);
        assert_eq!(list(schema.argument_kinds("netdev_add")), ["none", "user"]);
        assert_eq!(
            list(schema.argument_options("netdev_add")),
            ["id", "type", "user.aio", "user.hostfwd"]
        );
        assert_eq!(list(schema.result_kinds("query-x")), ["none", "user"]);
        assert_eq!(
            list(schema.argument_values("netdev_add", "user", "aio")),
            ["threads"]
        );
        assert!(schema.has_feature("query-x", "f") && !schema.has_feature("query-y", "f"));
        assert!(schema.argument_kinds("missing").is_empty());
    }
}
