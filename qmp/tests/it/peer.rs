//! A peer that says exactly what a test tells it to.

use serde_json::{Value, json};
use tokio::{
    io::{AsyncBufReadExt, AsyncWriteExt, BufReader},
    net::{UnixStream, unix::OwnedReadHalf, unix::OwnedWriteHalf},
};

pub(crate) const GREETING: &str = r#"{"QMP": {"version": {"qemu": {"micro": 1, "minor": 0, "major": 99}, "package": "scripted"}, "capabilities": ["oob"]}}"#;
pub(crate) const NO_OOB: &str = r#"{"QMP": {"version": {"qemu": {"micro": 1, "minor": 0, "major": 2}, "package": ""}, "capabilities": []}}"#;

pub(crate) struct Peer {
    reader: BufReader<OwnedReadHalf>,
    writer: OwnedWriteHalf,
}

impl Peer {
    pub(crate) fn new() -> (Self, UnixStream) {
        let (near, far) = UnixStream::pair().unwrap();
        let (reader, writer) = near.into_split();
        (
            Self {
                reader: BufReader::new(reader),
                writer,
            },
            far,
        )
    }

    pub(crate) async fn raw(&mut self, bytes: impl AsRef<[u8]>) {
        self.writer.write_all(bytes.as_ref()).await.unwrap();
    }

    pub(crate) async fn line(&mut self, text: &str) {
        self.raw(format!("{text}\r\n")).await;
    }

    /// The next line from the other side, as it is.
    pub(crate) async fn text(&mut self) -> String {
        let mut line = String::new();
        self.reader.read_line(&mut line).await.unwrap();
        line
    }

    /// The next line from the other side.
    pub(crate) async fn request(&mut self) -> Value {
        let line = self.text().await;
        serde_json::from_str(&line).unwrap_or_else(|e| panic!("{line:?}: {e}"))
    }

    /// Whether the other side has hung up, be it with our words unread.
    pub(crate) async fn at_end(&mut self) -> bool {
        let mut line = String::new();
        self.reader.read_line(&mut line).await.unwrap_or(0) == 0
    }

    pub(crate) async fn answer(&mut self, request: &Value, value: Value) {
        let mut reply = json!({ "return": value });
        if let Some(id) = request.get("id") {
            reply["id"] = id.clone();
        }
        self.line(&reply.to_string()).await;
    }

    /// Plays the opening and returns the negotiation request.
    pub(crate) async fn open(&mut self, greeting: &str) -> Value {
        self.line(greeting).await;
        let request = self.request().await;
        assert_eq!(request["execute"], "qmp_capabilities");
        self.answer(&request, json!({})).await;
        request
    }
}
