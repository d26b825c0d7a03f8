//! Random texts, random layers: no panic, and what merging promises.
#![expect(clippy::unwrap_used, reason = "tests")]

use proptest::prelude::*;

use super::parse::{faults, parse};
use super::testing::{Home, set};
use super::tree::{Source, Tree, lay, plain};
use super::{Choices, check};

fn source() -> Source {
    Source::BuiltIn("random".to_owned())
}

fn tree(text: &str) -> Tree {
    parse(&source(), text.to_owned()).unwrap().tree
}

fn laid(layers: &[&Tree]) -> toml::Table {
    let mut merged = Tree::new();
    for layer in layers {
        lay(&mut merged, (*layer).clone());
    }
    plain(&merged)
}

/// Lines that look like those of a profile, right and wrong.
fn line() -> impl Strategy<Value = String> {
    let key = prop::sample::select(vec![
        "summary", "extends", "variant", "variants", "when", "cpu", "memory", "disk", "network",
        "user", "tap", "none", "file", "empty", "path", "count", "size", "a", "'b c'", "\"\\n\"",
        "trace", "", "ä",
    ]);
    let keys = prop::collection::vec(key, 1..5).prop_map(|keys| keys.join("."));
    let value = prop_oneof![
        Just("1".to_owned()),
        Just("-1".to_owned()),
        Just("99999999999999999999999".to_owned()),
        Just("1.5".to_owned()),
        Just("true".to_owned()),
        Just("'4G'".to_owned()),
        Just("''".to_owned()),
        Just("['base', 'x']".to_owned()),
        Just("[1, {}]".to_owned()),
        Just("{}".to_owned()),
        Just("{ path = 'a' }".to_owned()),
        Just("1979-05-27".to_owned()),
        ".{0,12}",
    ];
    (keys, value, 0..4).prop_map(|(keys, value, shape)| match shape {
        0 => format!("[{keys}]"),
        1 => format!("[[{keys}]]"),
        _ => format!("{keys} = {value}"),
    })
}

/// A layer of the tables where merging has something to do, without alternatives.
fn layer() -> impl Strategy<Value = Tree> {
    let cpu = prop::option::of((0u32..3, "count|cores|threads"));
    let disk = prop::option::of(("a|b|c", "cache = 'none'|cache = 'unsafe'|boot = 1|boot = 2"));
    let trace = prop::option::of("x|y");
    (cpu, disk, trace).prop_map(|(cpu, disk, trace)| {
        let mut text = String::new();
        if let Some(trace) = trace {
            text.push_str(&format!("trace = ['{trace}']\n"));
        }
        if let Some((count, key)) = cpu {
            text.push_str(&format!("cpu.{key} = {count}\n"));
        }
        if let Some((id, value)) = disk {
            text.push_str(&format!("disk.{id}.{value}\n"));
        }
        tree(&text)
    })
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(96))]

    #[test]
    fn nonsense_is_an_error_and_not_a_panic(text in any::<String>()) {
        let told = parse(&source(), text.clone()).map(|_| ()).map_err(|fault| fault.to_string());
        let all = faults(&source(), &text, 50);
        prop_assert_eq!(told.is_ok(), all.is_empty());
    }

    #[test]
    fn lines_of_a_profile_in_any_order_are_an_error_or_a_profile(lines in prop::collection::vec(line(), 0..8)) {
        let text = lines.join("\n");
        let one = parse(&source(), text.clone());
        let all = faults(&source(), &text, 50);
        prop_assert_eq!(one.is_ok(), all.is_empty(), "{}", text);
        for fault in all {
            prop_assert!(fault.line as usize <= text.split('\n').count());
            prop_assert!(fault.excerpt.chars().count() < 400 && fault.message.chars().count() < 900);
        }
        let home = Home::new();
        home.write("profiles/x.toml", &text);
        let loaded = home.load("x", &Choices::default());
        let problems = check(&home.dirs, "x").unwrap();
        // What loads may still break a rule; what does not load is always told.
        prop_assert!(loaded.is_ok() || !problems.is_empty(), "{}", text);
    }

    #[test]
    fn any_flag_is_an_error_or_a_value(flag in any::<String>(), line in line()) {
        let home = Home::new();
        for flag in [flag, line] {
            let _ = home.load("linux", &set(&[&flag]));
        }
    }

    #[test]
    fn without_alternatives_the_order_of_folding_does_not_matter(a in layer(), b in layer(), c in layer()) {
        let mut right = b.clone();
        lay(&mut right, c.clone());
        prop_assert_eq!(laid(&[&a, &b, &c]), laid(&[&a, &right]));
    }

    #[test]
    fn a_layer_laid_twice_changes_nothing(a in layer(), b in layer()) {
        prop_assert_eq!(laid(&[&a, &b, &b]), laid(&[&a, &b]));
        prop_assert_eq!(laid(&[&b, &a, &b]), laid(&[&b, &a, &b, &b]));
    }
}

#[test]
fn deep_and_wide_texts_end_soon() {
    let started = std::time::Instant::now();
    for text in [
        "a.".repeat(400_000) + "b = 1",
        "[".repeat(800_000),
        format!("trace = {}", "[".repeat(800_000)),
        format!("cpu = {}", "{a = ".repeat(150_000)),
        "[disk.a]\n".repeat(80_000),
        (0..60_000).map(|n| format!("k{n} = {n}\n")).collect(),
        (0..20_000)
            .map(|n| format!("[disk.d{n}]\nempty = 1\n"))
            .collect(),
        format!("trace = ['{}']", "x".repeat(900_000)),
    ] {
        let all = faults(&source(), &text, 50);
        let one = parse(&source(), text);
        assert_eq!(one.is_ok(), all.is_empty());
    }
    assert!(started.elapsed().as_secs() < 60, "{:?}", started.elapsed());
}
