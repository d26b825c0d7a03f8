//! Why a file of libvirt's cannot be read at all.

use crate::error::{ExitCode, Hint};

use super::source::MAX_SIZE;

/// A file that no machine file can be made of.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum ImportError {
    /// More than any domain is.
    #[error("it is larger than the XML of a domain can be ({} MiB)", MAX_SIZE >> 20)]
    TooBig,
    /// Nothing is in it.
    #[error("it is empty")]
    Empty,
    /// Another encoding than UTF-8.
    #[error("its text is {0}, and only UTF-8 is read")]
    Encoding(String),
    /// Bytes that are no text.
    #[error("line {line} is not UTF-8 text")]
    NotUtf8 {
        /// The line of the first wrong byte, 1 first.
        line: usize,
    },
    /// It has a DOCTYPE, the way to entities that grow without bounds.
    #[error("it has a DOCTYPE, which libvirt's files never have and mvm does not read")]
    Dtd,
    /// More elements than any domain has.
    #[error("it has more elements than any domain ({0})")]
    TooMany(u32),
    /// Elements in elements in elements.
    #[error("its elements lie deeper in each other than those of any domain ({0})")]
    TooDeep(usize),
    /// A prefix that nobody declared.
    #[error("line {line}: the prefix `{prefix}` is not declared")]
    Prefix {
        /// The prefix.
        prefix: String,
        /// The line, 1 first.
        line: u32,
    },
    /// Not well-formed.
    #[error("it is not well-formed XML: {0}")]
    Syntax(String),
    /// Text without any element.
    #[error("it is no XML: no element is in it")]
    NotXml,
    /// More than one domain, or a domain and something else.
    #[error("it holds {}, and one file is one domain", several(*.domains, *.more))]
    Domains {
        /// How many there are.
        domains: usize,
        /// Whether there is something else.
        more: bool,
    },
    /// XML about something else.
    #[error("`<{root}>` is {what}, and not a domain")]
    NotADomain {
        /// The name of the outermost element.
        root: String,
        /// What such a file is.
        what: &'static str,
    },
    /// A domain in the older or in a foreign name space.
    #[error(
        "`<{root}>` is in the name space `{namespace}`, and libvirt's own elements are in none"
    )]
    Namespace {
        /// The name of the outermost element.
        root: String,
        /// The name space.
        namespace: String,
    },
    /// A guest that is not QEMU's.
    #[error("it is a domain of the type `{0}`, and mvm runs guests by QEMU only")]
    Hypervisor(String),
    /// A guest of an architecture that mvm does not know.
    #[error("it is a guest of the architecture `{0}`, and mvm has x86_64 and aarch64")]
    Arch(String),
    /// A guest whose system is not started in a virtual machine.
    #[error("it is a guest of the kind `{0}`, and mvm has virtual machines (`hvm`) only")]
    Kind(String),
    /// Devices that were looked for and are not there.
    #[error("it has no device that mvm could give to a guest")]
    NoDevices,
}

fn several(domains: usize, more: bool) -> String {
    let all = match domains {
        1 => "a domain".to_owned(),
        many => format!("{many} domains"),
    };
    if more {
        all + " and something beside"
    } else {
        all
    }
}

impl Hint for ImportError {
    fn hints(&self) -> Vec<String> {
        let one = |text: &str| vec![text.to_owned()];
        match self {
            Self::Empty | Self::NotXml => {
                one("`virsh dumpxml --inactive NAME > NAME.xml` writes one")
            }
            Self::Encoding(_) | Self::NotUtf8 { .. } => one(
                "`iconv -f UTF-16 -t UTF-8 FILE > NEW` converts it; the `encoding=` of its first line goes too",
            ),
            Self::Dtd => one("take the `<!DOCTYPE …>` out, and write what its entities stand for"),
            Self::Prefix { prefix, .. } if prefix == "qemu" => vec![format!(
                "libvirt wants `<domain xmlns:qemu='{}' …>`",
                super::QEMU_NAMESPACE
            )],
            Self::Domains { .. } => {
                one("give each domain a file of its own, and import one after the other")
            }
            Self::NotADomain { root, .. } => match root.as_str() {
                "domstatus" => one("`virsh dumpxml --inactive NAME` prints the domain itself"),
                "domainsnapshot" | "domaincheckpoint" => {
                    one("`virsh dumpxml --inactive NAME` prints the domain that it is of")
                }
                "network" => one(
                    "mvm has no networks of its own: `tap = { bridge = … }` joins a bridge of the host",
                ),
                "pool" | "volume" => {
                    one("mvm knows images by their paths: `virsh vol-path` tells a volume's")
                }
                _ => one("`virsh dumpxml --inactive NAME > NAME.xml` writes what can be imported"),
            },
            _ => Vec::new(),
        }
    }

    fn exit_code(&self) -> ExitCode {
        ExitCode::Failed
    }
}
