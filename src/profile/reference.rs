//! `machine-profiles/schema.json` and `docs/profile-reference.md`, made from the schema's types and
//! their comments. `UPDATE_DOCS=1 cargo test reference` writes them anew.
#![expect(clippy::unwrap_used, reason = "tests")]

use std::fmt::Write as _;
use std::path::Path;

use serde_json::Value;

use super::schema::Layer;

fn schema() -> Value {
    let generator = schemars::generate::SchemaSettings::draft07().into_generator();
    let mut schema = generator.into_root_schema_for::<Layer>().to_value();
    schema["title"] = "A machine profile of mvm".into();
    tidy(&mut schema);
    schema
}

/// TOML has no null: an optional key is one that is left out. Named tables become QEMU ids.
fn tidy(value: &mut Value) {
    match value {
        Value::Object(map) => {
            if let Some(Value::Array(types)) = map.get_mut("type") {
                types.retain(|kind| kind != "null");
                if let [only] = types.as_slice() {
                    let only = only.clone();
                    map.insert("type".to_owned(), only);
                }
            }
            if let Some(Value::Array(any)) = map.get_mut("anyOf") {
                any.retain(|one| one["type"] != "null");
                if let [only] = any.as_slice() {
                    // Beside a `$ref`, draft-07 looks at nothing else.
                    let all = Value::Array(vec![only.clone()]);
                    map.remove("anyOf");
                    map.insert("allOf".to_owned(), all);
                }
            }
            let of = map.get("additionalProperties").map(|of| of["$ref"].clone());
            // Numbers of processors, and what is a layer again, are no names of devices.
            let others = ["#/definitions/Variant", "#/definitions/CpuList"];
            if of.is_some_and(|of| of.as_str().is_some_and(|of| !others.contains(&of))) {
                let rule = serde_json::json!({ "pattern": "^[A-Za-z][A-Za-z0-9._-]{0,31}$" });
                map.insert("propertyNames".to_owned(), rule);
            }
            map.values_mut().for_each(tidy);
        }
        Value::Array(items) => items.iter_mut().for_each(tidy),
        _ => {}
    }
}

/// Compares a generated text with the file in the repository, or writes it.
fn current(path: &str, text: &str) {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join(path);
    if std::env::var_os("UPDATE_DOCS").is_some() {
        std::fs::write(&path, text).unwrap();
    }
    let stored = std::fs::read_to_string(&path).unwrap_or_default();
    assert!(
        stored == text,
        "{} is stale: UPDATE_DOCS=1 cargo test --lib reference",
        path.display()
    );
}

#[test]
fn the_json_schema_is_current() {
    let text = serde_json::to_string_pretty(&schema()).unwrap();
    current("machine-profiles/schema.json", &format!("{text}\n"));
}

#[test]
fn the_reference_is_current() {
    current("docs/profile-reference.md", &reference());
}

/// The reference of all keys: one section a table.
fn reference() -> String {
    let schema = schema();
    let mut out = String::from(
        "# The keys of a profile\n\n\
         Made from `src/profile/schema` by `UPDATE_DOCS=1 cargo test --lib reference`; do not edit.\n\
         How files are found and laid over each other: [profiles.md](profiles.md).\n\
         A *size* is a text such as `512M` or `4G` (binary units), a *span* one such as `30s` or `2m`.\n\
         `NAME` is a name of your own: a letter, then letters, digits, `-`, `_` or `.`, at most 32.\n\n\
         ## The file itself\n\n",
    );
    let mut tables = Vec::new();
    rows(&mut out, &schema, &schema["properties"], "", &mut tables);
    while !tables.is_empty() {
        let (path, table) = tables.remove(0);
        // The tables of a table come right after it.
        let mut below = Vec::new();
        section(&mut out, &schema, &path, &table, &mut below);
        tables.splice(0..0, below);
    }
    out
}

/// A heading, what the schema says of the table, and its keys.
fn section(
    out: &mut String,
    schema: &Value,
    path: &str,
    table: &Value,
    below: &mut Vec<(String, Value)>,
) {
    writeln!(out, "\n## `[{path}]`\n").unwrap();
    let about = table["description"].as_str().unwrap_or_default();
    if path == "variant.NAME" {
        writeln!(
            out,
            "{about}\n\nBeside `when`, a variant has the keys of the file itself except `summary`, \
             `extends`, `variant` and `variants`.\n"
        )
        .unwrap();
        let when = serde_json::json!({ "when": table["properties"]["when"] });
        return rows(out, schema, &when, path, below);
    }
    // Most comments only name the table, which the heading does.
    let bare = about
        .strip_prefix(&format!("`{path}`"))
        .or(about.strip_prefix(&format!("`[{path}]`")));
    match bare {
        None => writeln!(out, "{about}\n").unwrap(),
        Some(more) if more.starts_with(": ") => writeln!(out, "{}\n", capital(&more[2..])).unwrap(),
        Some(_) => {}
    }
    rows(out, schema, &table["properties"], path, below);
}

/// The text as the start of a sentence; the names of devices stay as they are.
fn capital(text: &str) -> String {
    let mut letters = text.chars();
    match letters.next() {
        Some(first) if !text.starts_with("virtio-") => {
            first.to_uppercase().chain(letters).collect()
        }
        _ => text.to_owned(),
    }
}

/// One table of Markdown, and the tables below it that are still to be told.
fn rows(
    out: &mut String,
    schema: &Value,
    properties: &Value,
    path: &str,
    tables: &mut Vec<(String, Value)>,
) {
    let Some(properties) = properties.as_object().filter(|keys| !keys.is_empty()) else {
        out.push_str("It has no keys: write `{}`.\n");
        return;
    };
    out.push_str("| key | value | meaning |\n|---|---|---|\n");
    for (key, property) in properties {
        let below = if path.is_empty() {
            key.clone()
        } else {
            format!("{path}.{key}")
        };
        let (kind, words) = kind(schema, property, &below, tables);
        let about = property["description"].as_str().unwrap_or_default();
        let about = [about, &words]
            .join(" ")
            .replace('\n', " ")
            .replace('|', "\\|");
        writeln!(out, "| `{key}` | {kind} | {} |", about.trim()).unwrap();
    }
}

/// What a key holds, and what its words mean.
fn kind(
    schema: &Value,
    property: &Value,
    path: &str,
    tables: &mut Vec<(String, Value)>,
) -> (String, String) {
    let target = property["allOf"][0]["$ref"]
        .as_str()
        .or(property["$ref"].as_str());
    if let Some(target) = target {
        let name = target.rsplit('/').next().unwrap();
        let target = &schema["definitions"][name];
        if let Some(words) = target["oneOf"].as_array() {
            let told = words
                .iter()
                .map(|word| {
                    let about = word["description"].as_str().unwrap_or_default();
                    format!("<br>`{}`: {about}", word["const"].as_str().unwrap())
                })
                .collect::<String>();
            return ("word".to_owned(), told);
        }
        if target["properties"].is_object() || target["type"] == "object" {
            if target["properties"]
                .as_object()
                .is_none_or(serde_json::Map::is_empty)
            {
                return ("`{}`".to_owned(), String::new());
            }
            tables.push((path.to_owned(), target.clone()));
            return (
                format!("table [`{path}`](#{})", anchor(path)),
                String::new(),
            );
        }
        let kind = match name {
            "Size" => "size",
            "Span" => "span",
            "PageSize" => "size or `none`",
            "MacAddr" => "text: a MAC address",
            "Bdf" => "text: a PCI address",
            "Id" => "text: a name",
            "PropertyValue" => "truth, whole number or text",
            "PciSlot" => "text: a slot",
            "UsbPort" => "text: a USB port",
            "DeviceId" => "text: vendor and device",
            "CpuList" => "text: a list of CPUs",
            "VfIndex" | "DisplayPort" => "whole number or `auto`",
            "DisplayTypes" => {
                let word = serde_json::json!({ "$ref": "#/definitions/DisplayType" });
                let (word, told) = kind(schema, &word, path, tables);
                return (format!("{word} or list of {word}s"), told);
            }
            other => panic!("the reference has no word for {other}"),
        };
        return (kind.to_owned(), String::new());
    }
    let map = &property["additionalProperties"];
    if map["type"] == "boolean" {
        return ("names, each `true` or `false`".to_owned(), String::new());
    }
    if map["$ref"] == "#/definitions/CpuList" {
        return (
            "numbers, each with a list of CPUs".to_owned(),
            String::new(),
        );
    }
    if map["$ref"].is_string() {
        let path = format!("{path}.NAME");
        return kind(schema, map, &path, tables);
    }
    let kind = match property["type"].as_str() {
        Some("string") => "text",
        Some("boolean") => "`true` or `false`",
        Some("integer") => "whole number",
        Some("array") => "list of texts",
        Some("object") => "table of names and numbers",
        other => panic!("the reference has no word for {other:?} of {path}"),
    };
    (kind.to_owned(), String::new())
}

/// The anchor that Markdown renderers make of a heading: letters, digits and `-`.
fn anchor(path: &str) -> String {
    path.to_lowercase().replace('.', "")
}
