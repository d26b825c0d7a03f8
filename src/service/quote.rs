//! Words in the languages of init systems. Control characters never come here.

/// A word of a shell command.
pub(super) fn shell(text: &str) -> String {
    // It fails for NUL only.
    shlex::try_quote(text).map_or_else(|_| text.to_owned(), std::borrow::Cow::into_owned)
}

/// Words of a shell command.
pub(super) fn shell_words(words: &[String]) -> String {
    let quoted: Vec<String> = words.iter().map(|word| shell(word)).collect();
    quoted.join(" ")
}

/// Whether no language of systemd sees anything in it.
fn is_plain(text: &str) -> bool {
    !text.is_empty()
        && text
            .bytes()
            .all(|b| b.is_ascii_alphanumeric() || b"-_./:=@+,".contains(&b))
}

/// A word of systemd.syntax(7), `%` being that of systemd.unit(5).
pub(super) fn systemd(text: &str) -> String {
    if is_plain(text) {
        return text.to_owned();
    }
    let mut quoted = String::from('"');
    for c in text.chars() {
        match c {
            '\\' | '"' => quoted.extend(['\\', c]),
            '%' => quoted.push_str("%%"),
            c => quoted.push(c),
        }
    }
    quoted.push('"');
    quoted
}

/// A command line of systemd.service(5), in which `$` begins a variable, but not in the program's path.
pub(super) fn systemd_command(words: &[String]) -> String {
    let mut words = words.iter();
    let program = words.next().map(|word| systemd(word));
    let rest = words.map(|word| systemd(&word.replace('$', "$$")));
    let quoted: Vec<String> = program.into_iter().chain(rest).collect();
    quoted.join(" ")
}

#[cfg(test)]
mod tests {
    use super::*;

    fn words(words: &[&str]) -> Vec<String> {
        words.iter().map(|word| (*word).to_owned()).collect()
    }

    #[test]
    fn each_language_has_its_own_escapes() {
        assert_eq!(systemd("/usr/bin/mvm"), "/usr/bin/mvm");
        assert_eq!(systemd(""), "\"\"");
        assert_eq!(systemd("a b"), "\"a b\"");
        assert_eq!(systemd(r#"50% of "a\b""#), r#""50%% of \"a\\b\"""#);
        assert_eq!(
            systemd_command(&words(&["/a$b/mvm", "run", "$x", "y;z"])),
            r#""/a$b/mvm" run "$$x" "y;z""#
        );
        assert_eq!(
            shell_words(&words(&["/a b/mvm", "it's"])),
            r#"'/a b/mvm' "it's""#
        );
    }
}
