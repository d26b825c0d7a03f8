//! From bytes to XML: what is not a domain's text is refused here, before anything is read in it.

use roxmltree::{Document, ParsingOptions};

use super::error::ImportError;

/// The largest file that is read, in bytes. A domain is some ten thousand.
pub const MAX_SIZE: u64 = 4 << 20;

/// More nodes than the largest domain has, and few enough to be held.
const MAX_NODES: u32 = 100_000;

/// libvirt's deepest elements lie some ten deep.
const MAX_DEPTH: usize = 100;

/// What the bytes say, without a byte order mark.
pub(super) fn text(bytes: &[u8]) -> Result<&str, ImportError> {
    if bytes.len() as u64 > MAX_SIZE {
        return Err(ImportError::TooBig);
    }
    let wide = match bytes {
        [0xff, 0xfe, 0, 0, ..] | [0, 0, 0xfe, 0xff, ..] => Some("UTF-32"),
        [0xff, 0xfe, ..] | [0xfe, 0xff, ..] | [b'<', 0, ..] | [0, b'<', ..] => Some("UTF-16"),
        _ => None,
    };
    if let Some(encoding) = wide {
        return Err(ImportError::Encoding(encoding.to_owned()));
    }
    let bytes = bytes.strip_prefix(b"\xef\xbb\xbf").unwrap_or(bytes);
    let text = std::str::from_utf8(bytes).map_err(|error| {
        match declared(&String::from_utf8_lossy(&bytes[..error.valid_up_to()])) {
            Some(encoding) => ImportError::Encoding(encoding),
            None => {
                let before = bytes[..error.valid_up_to()].iter();
                ImportError::NotUtf8 {
                    line: 1 + before.filter(|byte| **byte == b'\n').count(),
                }
            }
        }
    })?;
    match declared(text) {
        // The letters of the others differ, and who wrote them meant what the file says of itself.
        Some(encoding) if !text.is_ascii() => Err(ImportError::Encoding(encoding)),
        _ if text.trim().is_empty() => Err(ImportError::Empty),
        _ => Ok(text),
    }
}

/// The encoding of the XML declaration, where it is another than UTF-8.
fn declared(text: &str) -> Option<String> {
    let head = text
        .trim_start()
        .strip_prefix("<?xml")?
        .split("?>")
        .next()?;
    let after = head.split_once("encoding")?.1.trim_start();
    let value = after.strip_prefix('=')?.trim_start();
    let quote = value.chars().next().filter(|c| *c == '"' || *c == '\'')?;
    let name = value[1..].split(quote).next()?;
    let same = ["utf-8", "utf8", "us-ascii", "ascii"];
    (!same.contains(&name.to_ascii_lowercase().as_str()))
        .then(|| name.chars().filter(|c| !c.is_control()).take(40).collect())
}

/// The document. Entities are not expanded and nothing is fetched: a DOCTYPE is refused.
pub(super) fn parse(text: &str) -> Result<Document<'_>, ImportError> {
    deep(text)?;
    let options = ParsingOptions {
        allow_dtd: false,
        nodes_limit: MAX_NODES,
        ..ParsingOptions::default()
    };
    Document::parse_with_options(text, options).map_err(|error| match error {
        roxmltree::Error::DtdDetected => ImportError::Dtd,
        roxmltree::Error::NodesLimitReached => ImportError::TooMany(MAX_NODES),
        roxmltree::Error::UnknownNamespace(prefix, at) => ImportError::Prefix {
            prefix,
            line: at.row,
        },
        error => ImportError::Syntax(error.to_string()),
    })
}

/// Refuses elements that lie too deep, before the reader descends to them. Comments, CDATA and
/// instructions hold no elements.
fn deep(text: &str) -> Result<(), ImportError> {
    let (mut depth, mut deepest) = (0usize, 0usize);
    let mut rest = text;
    while let Some(at) = rest.find('<') {
        rest = &rest[at + 1..];
        let quiet = [("!--", "-->"), ("![CDATA[", "]]>"), ("?", "?>")];
        if let Some((_, close)) = quiet.into_iter().find(|(open, _)| rest.starts_with(open)) {
            let end = rest.find(close).map_or(rest.len(), |at| at + close.len());
            rest = &rest[end..];
            continue;
        }
        if rest.starts_with('/') {
            depth = depth.saturating_sub(1);
        } else if rest.starts_with(|c: char| c.is_alphabetic() || c == '_') {
            // A `>` in a value of an attribute ends the tag too early, and no depth comes of it.
            let tag = rest.split('>').next().unwrap_or_default();
            depth += usize::from(!tag.ends_with('/'));
            deepest = deepest.max(depth);
        }
    }
    if deepest > MAX_DEPTH {
        return Err(ImportError::TooDeep(deepest));
    }
    Ok(())
}

/// The text as one element, where it is a list of devices without one around them.
pub(super) fn wrapped(text: &str) -> Option<String> {
    let parsed = parse(text);
    if !matches!(&parsed, Err(ImportError::Syntax(_))) {
        return None;
    }
    let mut body = text.trim_start();
    if let Some(rest) = body.strip_prefix("<?xml") {
        body = rest.split_once("?>")?.1;
    }
    // Lines keep their numbers.
    let before = &text[..text.len() - body.len()];
    let lines = "\n".repeat(before.matches('\n').count());
    Some(format!("{lines}<devices>{body}</devices>"))
}

#[cfg(test)]
mod tests {
    #![expect(clippy::unwrap_used, reason = "a panic is a failed test")]
    use super::*;

    fn wrong(bytes: &[u8]) -> ImportError {
        match text(bytes) {
            Err(error) => error,
            Ok(text) => parse(text).unwrap_err(),
        }
    }

    #[test]
    fn encodings_are_told_apart() {
        let utf16: Vec<u8> = "<domain/>"
            .encode_utf16()
            .flat_map(u16::to_le_bytes)
            .collect();
        let mut marked = vec![0xff, 0xfe];
        marked.extend(&utf16);
        assert_eq!(wrong(&marked), ImportError::Encoding("UTF-16".into()));
        assert_eq!(wrong(&utf16), ImportError::Encoding("UTF-16".into()));
        assert_eq!(
            wrong(b"<?xml version='1.0' encoding='ISO-8859-1'?><domain><name>\xe4</name></domain>"),
            ImportError::Encoding("ISO-8859-1".into())
        );
        assert_eq!(
            wrong("<?xml version='1.0' encoding=\"latin1\"?><a>\u{e4}</a>".as_bytes()),
            ImportError::Encoding("latin1".into())
        );
        assert_eq!(wrong(b"<a>\n\xff</a>"), ImportError::NotUtf8 { line: 2 });
        assert_eq!(wrong(b" \n"), ImportError::Empty);
        for fine in [
            &b"\xef\xbb\xbf<domain/>"[..],
            b"<?xml version='1.0' encoding='ISO-8859-1'?><domain/>",
            b"<?xml version=\"1.0\" encoding=\"UTF-8\"?>\n<?a b?><!-- < --><domain/>",
        ] {
            parse(text(fine).unwrap()).unwrap();
        }
    }

    #[test]
    fn bombs_do_not_go_off() {
        let bomb = "<!DOCTYPE a [<!ENTITY a 'aaaa'><!ENTITY b '&a;&a;&a;'>]><domain>&b;</domain>";
        assert_eq!(wrong(bomb.as_bytes()), ImportError::Dtd);
        let outside = "<!DOCTYPE a SYSTEM 'file:///etc/passwd'><domain/>";
        assert_eq!(wrong(outside.as_bytes()), ImportError::Dtd);
        assert_eq!(
            wrong(&vec![b' '; MAX_SIZE as usize + 1]),
            ImportError::TooBig
        );
        let deep = format!("{}{}", "<a>".repeat(50_000), "</a>".repeat(50_000));
        assert_eq!(wrong(deep.as_bytes()), ImportError::TooDeep(50_000));
        let many = format!("<a>{}</a>", "<b/>".repeat(MAX_NODES as usize));
        assert_eq!(wrong(many.as_bytes()), ImportError::TooMany(MAX_NODES));
        assert_eq!(
            wrong(b"<domain>\n<qemu:commandline/></domain>"),
            ImportError::Prefix {
                prefix: "qemu".into(),
                line: 2
            }
        );
        assert!(matches!(wrong(b"<domain>"), ImportError::Syntax(_)));
        assert!(matches!(wrong(b"no XML at all"), ImportError::Syntax(_)));
    }
}
