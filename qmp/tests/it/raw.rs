//! A client of the server that sees every byte.

use std::{os::fd::OwnedFd, path::Path, time::Duration};

use serde_json::{Value, json};
use tokio::{
    io::{AsyncBufReadExt, AsyncReadExt, AsyncWriteExt, BufReader},
    net::UnixStream,
};

const LONG: Duration = Duration::from_secs(20);

pub(crate) struct Raw(pub(crate) BufReader<UnixStream>);

impl Raw {
    /// Connects and takes the greeting.
    pub(crate) async fn connect(path: &Path) -> Self {
        let mut raw = Self(BufReader::new(mvm_qmp::connect(path).await.unwrap()));
        assert!(raw.line().await.unwrap().contains("\"QMP\""));
        raw
    }

    pub(crate) async fn negotiated(path: &Path, enable: &[&str]) -> Self {
        let mut raw = Self::connect(path).await;
        let reply = raw
            .call(json!({"execute": "qmp_capabilities", "arguments": {"enable": enable}}))
            .await;
        assert_eq!(reply, json!({"return": {}}));
        raw
    }

    pub(crate) async fn send(&mut self, text: impl AsRef<[u8]>) {
        self.0.get_mut().write_all(text.as_ref()).await.unwrap();
    }

    /// The next line; `None` at the end.
    pub(crate) async fn line(&mut self) -> Option<String> {
        let mut line = String::new();
        let read = tokio::time::timeout(LONG, self.0.read_line(&mut line)).await;
        match read.expect("a line in time") {
            Ok(0) | Err(_) => None,
            Ok(_) => Some(line),
        }
    }

    pub(crate) async fn json(&mut self) -> Value {
        let line = self.line().await.expect("a line and not the end");
        assert!(line.ends_with("\r\n"), "{line:?}");
        serde_json::from_str(&line).unwrap()
    }

    /// The next line that is no event.
    pub(crate) async fn reply(&mut self) -> Value {
        loop {
            let value = self.json().await;
            if value.get("event").is_none() {
                return value;
            }
        }
    }

    pub(crate) async fn event(&mut self) -> Value {
        loop {
            let value = self.json().await;
            if value.get("event").is_some() {
                return value;
            }
        }
    }

    pub(crate) async fn call(&mut self, request: Value) -> Value {
        self.send(request.to_string()).await;
        self.reply().await
    }

    pub(crate) async fn call_with_fd(&mut self, request: Value, fd: impl Into<OwnedFd>) -> Value {
        let (text, fd) = (request.to_string(), fd.into());
        let stream = self.0.get_ref();
        stream.writable().await.unwrap();
        let sent = stream.try_io(tokio::io::Interest::WRITABLE, || {
            use rustix::net::{SendAncillaryBuffer, SendAncillaryMessage, SendFlags, sendmsg};
            let fds = [std::os::fd::AsFd::as_fd(&fd)];
            let mut space = vec![std::mem::MaybeUninit::uninit(); 64];
            let mut control = SendAncillaryBuffer::new(&mut space);
            assert!(control.push(SendAncillaryMessage::ScmRights(&fds)));
            let text = [std::io::IoSlice::new(text.as_bytes())];
            Ok(sendmsg(stream, &text, &mut control, SendFlags::empty())?)
        });
        assert_eq!(sent.unwrap(), text.len());
        self.reply().await
    }

    /// Ends our side and takes what is left.
    pub(crate) async fn rest(mut self) -> String {
        let mut rest = String::new();
        self.0.get_mut().shutdown().await.unwrap();
        tokio::time::timeout(LONG, self.0.read_to_string(&mut rest))
            .await
            .unwrap()
            .unwrap();
        rest
    }
}
