//! Reading XML so that nothing is overlooked: what was looked at is remembered, and the rest is found.

use std::cell::RefCell;
use std::collections::HashSet;

use roxmltree::{Document, Node, NodeId};

/// What has been looked at.
#[derive(Debug, Default)]
pub(super) struct Seen {
    elements: RefCell<HashSet<NodeId>>,
    attributes: RefCell<HashSet<(NodeId, usize)>>,
    texts: RefCell<HashSet<NodeId>>,
}

/// An element. Whoever asks for a part of it has looked at that part; what nobody asked for is [`rest`].
#[derive(Clone, Copy)]
pub(super) struct El<'a> {
    node: Node<'a, 'a>,
    seen: &'a Seen,
}

impl<'a> El<'a> {
    /// The outermost element.
    pub(super) fn root(document: &'a Document<'a>, seen: &'a Seen) -> Self {
        let node = document.root_element();
        seen.elements.borrow_mut().insert(node.id());
        Self { node, seen }
    }

    /// The name, without a prefix.
    pub(super) fn name(self) -> &'a str {
        self.node.tag_name().name()
    }

    /// The name space; `None` for libvirt's own elements.
    pub(super) fn namespace(self) -> Option<&'a str> {
        self.node.tag_name().namespace()
    }

    /// The line, 1 first.
    pub(super) fn line(self) -> u32 {
        let document = self.node.document();
        document.text_pos_at(self.node.range().start).row
    }

    /// An attribute, left as not looked at.
    pub(super) fn peek(self, name: &str) -> Option<&'a str> {
        self.node.attribute(name)
    }

    /// An attribute.
    pub(super) fn attr(self, name: &str) -> Option<&'a str> {
        self.read(name, Some)
    }

    /// An attribute that must be understood to count as looked at.
    pub(super) fn read<T>(
        self,
        name: &str,
        as_what: impl FnOnce(&'a str) -> Option<T>,
    ) -> Option<T> {
        let mut all = self.node.attributes().enumerate();
        let (at, found) = all.find(|(_, one)| one.name() == name && one.namespace().is_none())?;
        let value = as_what(found.value())?;
        self.seen
            .attributes
            .borrow_mut()
            .insert((self.node.id(), at));
        Some(value)
    }

    /// An attribute that is `yes` or `no`, `on` or `off`.
    pub(super) fn flag(self, name: &str) -> Option<bool> {
        self.read(name, truth)
    }

    /// An attribute that is a number, in the forms of libvirt: decimal, or hexadecimal after `0x`.
    pub(super) fn number(self, name: &str) -> Option<u64> {
        self.read(name, number)
    }

    /// Whether the attribute is exactly that, which then needs no line in a profile.
    pub(super) fn is(self, name: &str, value: &str) -> bool {
        self.read(name, |text| (text == value).then_some(()))
            .is_some()
    }

    /// The first element of that name in it that nobody has looked at.
    pub(super) fn child(self, name: &str) -> Option<Self> {
        self.unseen(name).next().map(Self::enter)
    }

    /// All elements of that name in it.
    pub(super) fn children(self, name: &str) -> Vec<Self> {
        self.unseen(name).map(Self::enter).collect()
    }

    fn unseen(self, name: &str) -> impl Iterator<Item = Self> {
        self.all()
            .filter(move |one| one.name() == name && one.namespace().is_none() && !one.is_seen())
    }

    /// All elements in it, left as not looked at.
    pub(super) fn all(self) -> impl Iterator<Item = Self> {
        let seen = self.seen;
        let elements = self.node.children().filter(Node::is_element);
        elements.map(move |node| Self { node, seen })
    }

    /// Whether somebody has looked at it.
    pub(super) fn is_seen(self) -> bool {
        self.seen.elements.borrow().contains(&self.node.id())
    }

    /// The same, as looked at.
    pub(super) fn enter(self) -> Self {
        self.seen.elements.borrow_mut().insert(self.node.id());
        self
    }

    /// The text in it, CDATA and what stands around comments included.
    pub(super) fn text(self) -> String {
        self.value(|text| Some(text.to_owned())).unwrap_or_default()
    }

    /// The text in it, which must be understood to count as looked at.
    pub(super) fn value<T>(self, as_what: impl FnOnce(&str) -> Option<T>) -> Option<T> {
        let parts: Vec<_> = self.node.children().filter(Node::is_text).collect();
        let text: String = parts.iter().filter_map(Node::text).collect();
        let value = as_what(text.trim())?;
        let mut seen = self.seen.texts.borrow_mut();
        seen.extend(parts.iter().map(Node::id));
        Some(value)
    }

    /// Everything in it is as looked at.
    pub(super) fn whole(self) {
        for node in self.node.descendants() {
            if node.is_element() {
                self.seen.elements.borrow_mut().insert(node.id());
                let all = node.attributes().enumerate();
                let all = all.map(|(at, _)| (node.id(), at));
                self.seen.attributes.borrow_mut().extend(all);
            } else if node.is_text() {
                self.seen.texts.borrow_mut().insert(node.id());
            }
        }
    }

    /// The element in one short line, secrets taken out.
    pub(super) fn shown(self) -> String {
        let mut text = format!("<{}", self.tag());
        // The value of a variable whose name tells what it is.
        let secret = self.node.attributes().any(|one| is_secret(one.value()));
        for one in self.node.attributes() {
            let shown = if secret {
                hidden(one.name())
            } else {
                attribute(one.name(), one.value())
            };
            text.push_str(&format!(" {shown}"));
        }
        let inner = self.node.text().unwrap_or_default().trim();
        if self.node.children().any(|child| child.is_element()) {
            text.push_str(">…");
        } else if inner.is_empty() {
            text.push_str("/>");
        } else {
            text.push_str(&format!(">{}</{}>", short(inner), self.tag()));
        }
        text
    }

    /// The name with the prefix that the file gives it.
    fn tag(self) -> String {
        let prefix = self
            .namespace()
            .and_then(|space| self.node.lookup_prefix(space));
        match prefix {
            Some(prefix) if !prefix.is_empty() => format!("{prefix}:{}", self.name()),
            _ => self.name().to_owned(),
        }
    }
}

/// `on` and `yes`, `off` and `no`.
pub(super) fn truth(text: &str) -> Option<bool> {
    match text {
        "yes" | "on" | "true" => Some(true),
        "no" | "off" | "false" => Some(false),
        _ => None,
    }
}

/// Decimal, or hexadecimal after `0x`; no more than a number of a machine file can be.
pub(super) fn number(text: &str) -> Option<u64> {
    let number = match text.strip_prefix("0x") {
        Some(digits) => u64::from_str_radix(digits, 16).ok(),
        None => text.parse().ok(),
    };
    number.filter(|number| i64::try_from(*number).is_ok())
}

/// Something in the file that nobody looked at.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Rest {
    /// The line, 1 first.
    pub(super) line: u32,
    /// It, in one short line.
    pub(super) what: String,
    /// Why it was left, as far as can be told.
    pub(super) why: &'static str,
}

/// An element that no part of the importer has asked for.
const UNKNOWN: &str = "mvm does not know it";

/// An attribute or a text of an element that is known; who asked for it may not have understood it.
const NOT_SO: &str = "mvm does not know it, or not with this value";

/// All that nobody looked at: elements as a whole, else attributes and texts.
pub(super) fn rest(root: El<'_>) -> Vec<Rest> {
    let mut found = Vec::new();
    let mut open = vec![root];
    while let Some(element) = open.pop() {
        if !element.is_seen() {
            found.push(Rest {
                line: element.line(),
                what: element.shown(),
                why: UNKNOWN,
            });
            continue;
        }
        let id = element.node.id();
        for (at, one) in element.node.attributes().enumerate() {
            if !element.seen.attributes.borrow().contains(&(id, at)) {
                let what = format!("<{}> {}", element.tag(), attribute(one.name(), one.value()));
                found.push(Rest {
                    line: element.line(),
                    what,
                    why: NOT_SO,
                });
            }
        }
        for part in element.node.children().filter(Node::is_text) {
            let text = part.text().unwrap_or_default().trim();
            if !text.is_empty() && !element.seen.texts.borrow().contains(&part.id()) {
                let what = format!("<{}>{}", element.tag(), short(text));
                found.push(Rest {
                    line: element.line(),
                    what,
                    why: NOT_SO,
                });
            }
        }
        open.extend(element.all());
    }
    found.sort_by_key(|rest| rest.line);
    found
}

fn attribute(name: &str, value: &str) -> String {
    if is_secret(name) || is_secret(value) {
        return hidden(name);
    }
    format!("{name}='{}'", short(value))
}

fn hidden(name: &str) -> String {
    format!("{name}='(not shown)'")
}

/// Whether the name or the argument is one of a password.
pub(super) fn is_secret(text: &str) -> bool {
    let text = text.to_ascii_lowercase();
    ["passw", "secret,", "secret\"", "passphrase"]
        .iter()
        .any(|word| text.contains(word))
}

/// A text on one line, not too long, nothing that a terminal obeys.
pub(super) fn short(text: &str) -> String {
    let words = text.split_whitespace().collect::<Vec<_>>().join(" ");
    let tame = |c: char| if c.is_control() { '\u{fffd}' } else { c };
    let mut out: String = words.chars().take(80).map(tame).collect();
    if words.chars().nth(80).is_some() {
        out.push('…');
    }
    out
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_nobody_asked_for_is_found() {
        let text = "<domain a='1' b='2'>\n<!-- c --><name>x<![CDATA[<y>]]></name>\n\
                    <disk><source file='f' index='3'/>words</disk>\n<disk/><vnc passwd='hush'/></domain>";
        let document = Document::parse(text).expect("it is well-formed");
        let seen = Seen::default();
        let root = El::root(&document, &seen);
        assert_eq!(root.attr("a"), Some("1"));
        assert_eq!(root.child("name").map(El::text).as_deref(), Some("x<y>"));
        let disk = root.child("disk").expect("it is there");
        let source = disk.child("source").expect("it is there");
        assert_eq!(source.attr("file"), Some("f"));
        assert_eq!(source.read("index", |_| None::<()>), None);
        let found: Vec<_> = rest(root)
            .into_iter()
            .map(|rest| (rest.line, rest.what))
            .collect();
        let expected = [
            (1, "<domain> b='2'"),
            (3, "<disk>words"),
            (3, "<source> index='3'"),
            (4, "<vnc passwd='(not shown)'/>"),
            (4, "<disk/>"),
        ];
        assert_eq!(found, expected.map(|(line, what)| (line, what.to_owned())));
    }
}
