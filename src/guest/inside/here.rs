//! This host in a guest's place: the agent's commands, done here. The scripts and the shell are real.

use std::collections::BTreeMap;
use std::fs::{File, OpenOptions};
use std::io::{self, Read as _, Seek as _, SeekFrom, Write as _};
use std::process::{Child, Command, Stdio};
use std::time::Duration;

use serde_json::{Value, json};

use super::files::{bytes, text};
use super::{CallError, Inside};

/// An agent of this host.
#[derive(Default)]
pub(super) struct Here {
    children: BTreeMap<i64, Child>,
    files: BTreeMap<i64, File>,
    last: i64,
    /// Calls so far, by command.
    pub(super) calls: BTreeMap<String, u32>,
    /// It has no shell.
    pub(super) no_shell: bool,
    /// It keeps less output than there is.
    pub(super) truncates: bool,
    /// That many calls are not heard.
    pub(super) silent: u32,
    /// At that call of `guest-exec-status` it is started anew.
    pub(super) dies_at: Option<u32>,
}

impl Here {
    fn number(&mut self) -> i64 {
        self.last += 1;
        self.last
    }

    fn exec(&mut self, arguments: &Value) -> io::Result<Value> {
        let path = arguments["path"].as_str().unwrap_or_default();
        if self.no_shell && path == super::shell::SHELL {
            return Err(io::Error::other("Failed to execute child process"));
        }
        let words = arguments["arg"].as_array().into_iter().flatten();
        let mut child = Command::new(path)
            .args(words.filter_map(Value::as_str))
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .spawn()?;
        let input = bytes("guest-exec", &arguments["input-data"]).map_err(io::Error::other)?;
        if let Some(mut stdin) = child.stdin.take() {
            // Nobody has to read it.
            let _ = stdin.write_all(&input);
        }
        let pid = i64::from(child.id());
        self.children.insert(pid, child);
        Ok(json!({ "pid": pid }))
    }

    fn status(&mut self, pid: i64) -> io::Result<Value> {
        let child = self.children.get_mut(&pid);
        let child = child.ok_or_else(|| io::Error::other("Invalid parameter 'pid'"))?;
        if child.try_wait()?.is_none() {
            return Ok(json!({ "exited": false }));
        }
        let Some(child) = self.children.remove(&pid) else {
            return Ok(Value::Null);
        };
        let output = child.wait_with_output()?;
        Ok(json!({
            "exited": true,
            "exitcode": output.status.code(),
            "out-data": text(&output.stdout),
            "err-data": text(&output.stderr),
            "out-truncated": self.truncates,
        }))
    }

    fn file(&mut self, arguments: &Value) -> io::Result<&mut File> {
        let handle = arguments["handle"].as_i64().unwrap_or_default();
        let file = self.files.get_mut(&handle);
        file.ok_or_else(|| io::Error::other("handle has not been found"))
    }

    fn open(&mut self, arguments: &Value) -> io::Result<Value> {
        let path = arguments["path"].as_str().unwrap_or_default();
        let file = match arguments["mode"].as_str() {
            Some("r") => File::open(path),
            Some("r+") => OpenOptions::new().read(true).write(true).open(path),
            Some("w") => File::create(path),
            mode => Err(io::Error::other(format!("no mode {mode:?}"))),
        }?;
        let handle = self.number();
        self.files.insert(handle, file);
        Ok(json!(handle))
    }

    fn done(&mut self, command: &str, arguments: &Value) -> io::Result<Value> {
        match command {
            "guest-exec" => self.exec(arguments),
            "guest-exec-status" => self.status(arguments["pid"].as_i64().unwrap_or_default()),
            "guest-file-open" => self.open(arguments),
            "guest-file-read" => {
                let mut piece = vec![0; arguments["count"].as_u64().unwrap_or_default() as usize];
                let count = self.file(arguments)?.read(&mut piece)?;
                Ok(json!({ "count": count, "buf-b64": text(&piece[..count]) }))
            }
            "guest-file-write" => {
                let piece = bytes(command, &arguments["buf-b64"]).map_err(io::Error::other)?;
                let count = self.file(arguments)?.write(&piece)?;
                Ok(json!({ "count": count }))
            }
            "guest-file-seek" => {
                let to = arguments["offset"].as_u64().unwrap_or_default();
                self.file(arguments)?.seek(SeekFrom::Start(to))?;
                Ok(json!({}))
            }
            "guest-file-flush" => self.file(arguments).map(|_| json!({})),
            "guest-file-close" => {
                let handle = arguments["handle"].as_i64().unwrap_or_default();
                self.files.remove(&handle);
                Ok(json!({}))
            }
            other => Err(io::Error::other(format!("no command {other}"))),
        }
    }
}

impl Inside for Here {
    fn guest(&self) -> &str {
        "here"
    }

    async fn call(
        &mut self,
        command: &str,
        arguments: Value,
        _within: Duration,
    ) -> Result<Value, CallError> {
        let calls = self.calls.entry(command.to_owned()).or_default();
        *calls += 1;
        if command == "guest-exec-status" && self.dies_at == Some(*calls) {
            self.dies_at = None;
            self.children.clear();
            self.files.clear();
        }
        if self.silent > 0 && command == "guest-exec-status" {
            self.silent -= 1;
            return Err(CallError::Silent {
                sent: false,
                message: "the guest is paused".to_owned(),
                hints: Vec::new(),
            });
        }
        self.done(command, &arguments)
            .map_err(|error| CallError::Refused {
                command: command.to_owned(),
                class: "GenericError".to_owned(),
                desc: error.to_string(),
                hints: Vec::new(),
            })
    }
}
