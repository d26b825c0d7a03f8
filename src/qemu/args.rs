//! How values become arguments: JSON where QEMU takes it, one escaping function where it does not.

use std::path::Path;

use serde_json::{Map, Value};

use super::command::{Arg, Fd, FdSource};
use crate::machine::slots::Place;

/// The arguments so far, and the descriptors they name.
#[derive(Debug, Default)]
pub(super) struct Args {
    pub(super) args: Vec<Arg>,
    pub(super) fds: Vec<Fd>,
}

impl Args {
    /// A switch alone.
    pub(super) fn flag(&mut self, switch: &str) {
        self.args.push(Arg::Text(switch.to_owned()));
    }

    /// A switch whose value QEMU takes as it is: a path, a kernel's command line.
    pub(super) fn raw(&mut self, switch: &str, value: impl Into<String>) {
        self.flag(switch);
        self.args.push(Arg::Text(value.into()));
    }

    /// A switch with options.
    pub(super) fn options(&mut self, switch: &str, options: Options) {
        self.raw(switch, options.0);
    }

    /// A switch with options that name descriptors, and what people would write instead.
    pub(super) fn options_fd(&mut self, switch: &str, real: Options, shown: Options) {
        self.flag(switch);
        self.args.push(Arg::Fd {
            real: real.0,
            shown: shown.0,
        });
    }

    /// A switch with options that name descriptors, for QEMU under mvm alone.
    pub(super) fn real_options(&mut self, switch: &str, options: Options) {
        self.args.push(Arg::Real(switch.to_owned()));
        self.args.push(Arg::Real(options.0));
    }

    /// A switch with an object.
    pub(super) fn json(&mut self, switch: &str, object: Object) {
        self.raw(switch, object.text());
    }

    /// A switch with an object that names descriptors, and what people would write instead.
    pub(super) fn json_fd(&mut self, switch: &str, real: Object, shown: Object) {
        self.flag(switch);
        self.args.push(Arg::Fd {
            real: real.text(),
            shown: shown.text(),
        });
    }

    /// `-device`
    pub(super) fn device(&mut self, device: Object) {
        self.json("-device", device);
    }

    /// A descriptor that QEMU inherits.
    pub(super) fn fd(&mut self, name: impl Into<String>, source: FdSource) {
        self.fds.push(Fd {
            name: name.into(),
            source,
        });
    }
}

/// `key=value,key=value`, in which a comma of a value is written twice (`util/keyval.c` and
/// `util/qemu-option.c` of QEMU). Nothing else is special there, newlines included.
#[derive(Debug, Clone)]
pub(super) struct Options(String);

impl Options {
    /// Options that begin with a value without a key.
    pub(super) fn new(first: &str) -> Self {
        Self(escape(first))
    }

    /// Options that begin with a key.
    pub(super) fn with(key: &str, value: &str) -> Self {
        Self(format!("{key}={}", escape(value)))
    }

    /// One more.
    pub(super) fn set(mut self, key: &str, value: impl std::fmt::Display) -> Self {
        let value = escape(&value.to_string());
        self.0.push_str(&format!(",{key}={value}"));
        self
    }
}

fn escape(value: &str) -> String {
    value.replace(',', ",,")
}

/// A JSON object for `-device`, `-object`, `-netdev`, `-blockdev`. The keys keep their order.
#[derive(Debug, Clone)]
pub(super) struct Object(Map<String, Value>);

impl Object {
    /// An object that begins with what it is: `driver`, `qom-type` or `type`.
    pub(super) fn new(key: &str, what: &str) -> Self {
        let mut map = Map::new();
        map.insert(key.to_owned(), what.into());
        Self(map)
    }

    /// A device.
    pub(super) fn device(driver: &str, id: impl Into<String>) -> Self {
        Self::new("driver", driver).set("id", id.into())
    }

    /// One more.
    pub(super) fn set(mut self, key: &str, value: impl Into<Value>) -> Self {
        self.0.insert(key.to_owned(), value.into());
        self
    }

    /// One more where there is a value.
    pub(super) fn set_some(self, key: &str, value: Option<impl Into<Value>>) -> Self {
        match value {
            Some(value) => self.set(key, value),
            None => self,
        }
    }

    /// Where the device sits.
    pub(super) fn at(self, place: Place) -> Self {
        self.set("bus", place.bus).set_some("addr", place.addr)
    }

    fn text(&self) -> String {
        Value::Object(self.0.clone()).to_string()
    }
}

/// A path as QEMU's options have it. `resolve` lets only UTF-8 through.
pub(super) fn path(path: &Path) -> String {
    path.to_string_lossy().into_owned()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn no_value_breaks_out_of_its_key() {
        let options = Options::new("socket")
            .set("path", "/a,server=off,b = \"c\"\n")
            .set("wait", "off");
        assert_eq!(
            options.0,
            "socket,path=/a,,server=off,,b = \"c\"\n,wait=off"
        );
        let object = Object::device("d", "x").set("serial", "a\",\"b\":\"c\n,ü");
        let back: Value = serde_json::from_str(&object.text()).expect("it was made of JSON");
        assert_eq!(back["serial"], "a\",\"b\":\"c\n,ü");
        assert!(object.text().starts_with(r#"{"driver":"d","id":"x","#));
    }
}
