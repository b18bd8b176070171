//! One request to shifterd: HTTP over its Unix socket, bounded in time and size.

use std::{
    io,
    path::{Path, PathBuf},
    time::Duration,
};

use bytes::Bytes;
use http_body_util::{BodyExt, Full, Limited};
use hyper::{Method, Request, StatusCode, client::conn::http1, header};
use hyper_util::rt::TokioIo;
use serde::{Serialize, de::DeserializeOwned};
use serde_json::Value;
use shifter_common::wire::Refusal;
use tokio::{
    net::UnixStream,
    time::{sleep, timeout},
};

use crate::failure::Failure;

/// Size of the largest answer that is read: status of ten thousand backends is a tenth of it.
const ANSWER_MAX_BYTES: usize = 64 << 20;
/// Pause before another try where the daemon's queue of connections is full.
const QUEUE_PAUSE: Duration = Duration::from_millis(20);

/// How to ask.
#[derive(Clone, Debug)]
pub struct Client {
    /// The control socket.
    pub socket: PathBuf,
    /// Time for connecting, asking and the whole answer.
    pub within: Duration,
    /// Whether strings are made safe for a terminal; JSON for programs stays as it was sent.
    pub for_terminal: bool,
}

impl Client {
    /// `GET path`.
    ///
    /// # Errors
    /// Not reachable, not in time, refused, or an answer that is no `T`.
    pub async fn get<T: DeserializeOwned>(&self, path: &str) -> Result<T, Failure> {
        self.ask(Method::GET, path, None).await
    }

    /// `POST path` with a JSON body.
    ///
    /// # Errors
    /// As [`Self::get`].
    pub async fn post<T: DeserializeOwned>(
        &self,
        path: &str,
        body: &impl Serialize,
    ) -> Result<T, Failure> {
        let body = serde_json::to_vec(body).map_err(|error| Failure::Io {
            what: "write the request",
            error: error.into(),
        })?;
        self.ask(Method::POST, path, Some(body)).await
    }

    /// `GET path`: the answer as it was sent.
    ///
    /// # Errors
    /// As [`Self::get`].
    pub async fn get_text(&self, path: &str) -> Result<String, Failure> {
        let exchange = self.exchange(Method::GET, path, None);
        let (status, bytes) = timeout(self.within, exchange)
            .await
            .map_err(|_| Failure::Timeout(self.within))??;
        if !status.is_success() {
            return self
                .read::<serde::de::IgnoredAny>(status, &bytes)
                .and_then(|_| Err(self.strange(format!("HTTP {}", status.as_u16()))));
        }
        String::from_utf8(bytes.into()).map_err(|error| self.strange(error.to_string()))
    }

    /// A value that came in a text; what it should have been if it is not that.
    pub fn read_record<T: DeserializeOwned + Default>(&self, text: &str) -> T {
        let mut value: Value = serde_json::from_str(text).unwrap_or_default();
        if self.for_terminal {
            clean(&mut value);
        }
        serde_json::from_value(value).unwrap_or_default()
    }

    async fn ask<T: DeserializeOwned>(
        &self,
        method: Method,
        path: &str,
        body: Option<Vec<u8>>,
    ) -> Result<T, Failure> {
        let exchange = self.exchange(method, path, body);
        let (status, bytes) = timeout(self.within, exchange)
            .await
            .map_err(|_| Failure::Timeout(self.within))??;
        self.read(status, &bytes)
    }

    async fn exchange(
        &self,
        method: Method,
        path: &str,
        body: Option<Vec<u8>>,
    ) -> Result<(StatusCode, Bytes), Failure> {
        let stream = connect(&self.socket).await?;
        let failed = |error: hyper::Error| self.failed(error);
        let (mut sender, connection) = http1::handshake(TokioIo::new(stream))
            .await
            .map_err(failed)?;
        // Ends when `sender` is dropped; its error also comes out of `send_request`.
        let connection = tokio::spawn(connection);
        let mut request = Request::builder()
            .method(method)
            .uri(path)
            .header(header::HOST, "shifter");
        if body.is_some() {
            request = request.header(header::CONTENT_TYPE, "application/json");
        }
        let request = request
            .body(Full::new(Bytes::from(body.unwrap_or_default())))
            .map_err(|error| Failure::Io {
                what: "write the request",
                error: io::Error::other(error),
            })?;
        let answer = sender.send_request(request).await.map_err(failed)?;
        let status = answer.status();
        let body = Limited::new(answer.into_body(), ANSWER_MAX_BYTES)
            .collect()
            .await;
        connection.abort();
        match body {
            Ok(body) => Ok((status, body.to_bytes())),
            Err(error) => match error.downcast::<hyper::Error>() {
                Ok(error) => Err(failed(*error)),
                Err(error) => Err(self.strange(error.to_string())),
            },
        }
    }

    fn failed(&self, error: hyper::Error) -> Failure {
        if error.is_parse() {
            return self.strange(format!("no HTTP ({error})"));
        }
        // What is left is a connection that broke: closed early, reset, or cancelled with it.
        Failure::HungUp
    }

    fn read<T: DeserializeOwned>(&self, status: StatusCode, bytes: &[u8]) -> Result<T, Failure> {
        let mut value: Value = serde_json::from_slice(bytes)
            .map_err(|_| self.strange(format!("HTTP {} without JSON", status.as_u16())))?;
        if self.for_terminal {
            clean(&mut value);
        }
        if status.is_success() {
            return serde_json::from_value(value).map_err(|error| self.strange(error.to_string()));
        }
        match serde_json::from_value::<Refusal>(value) {
            Ok(refusal) => Err(Failure::Refused(refusal)),
            Err(error) => Err(self.strange(format!("HTTP {} with {error}", status.as_u16()))),
        }
    }

    /// Something that no shifterd sends.
    pub fn strange(&self, what: String) -> Failure {
        Failure::Strange {
            socket: self.socket.clone(),
            what,
        }
    }
}

async fn connect(socket: &Path) -> Result<UnixStream, Failure> {
    loop {
        match UnixStream::connect(socket).await {
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => sleep(QUEUE_PAUSE).await,
            connected => return connected.map_err(|error| Failure::connecting(socket, error)),
        }
    }
}

/// Takes control characters out of all strings. An error text may hold what a backend has sent,
/// and that must not move an operator's cursor.
fn clean(value: &mut Value) {
    match value {
        Value::String(text) if text.contains(char::is_control) => {
            *text = text
                .chars()
                .map(|c| if c.is_control() { ' ' } else { c })
                .collect();
        }
        Value::Array(values) => values.iter_mut().for_each(clean),
        Value::Object(fields) => fields.values_mut().for_each(clean),
        _ => {}
    }
}

/// One segment of a path, with everything escaped that is not plain.
pub fn segment(text: &str) -> String {
    let plain = |byte: u8| byte.is_ascii_alphanumeric() || b"-_.~".contains(&byte);
    text.bytes()
        .map(|byte| {
            if plain(byte) {
                char::from(byte).to_string()
            } else {
                format!("%{byte:02X}")
            }
        })
        .collect()
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn control_characters_are_taken_out_everywhere() {
        let mut value = json!({
            "a": "x\u{1b}[31my\n", "b": ["\u{7f}", {"c": "\u{9b}2J"}], "d": 5, "e": "é"
        });
        clean(&mut value);
        assert_eq!(
            value,
            json!({"a": "x [31my ", "b": [" ", {"c": " 2J"}], "d": 5, "e": "é"})
        );
    }

    #[test]
    fn a_name_cannot_change_the_path() {
        let rows = [
            ("orders-2", "orders-2"),
            ("a/b", "a%2Fb"),
            ("a b?x#y", "a%20b%3Fx%23y"),
            ("ä", "%C3%A4"),
            ("..", ".."),
        ];
        for (name, expected) in rows {
            assert_eq!(segment(name), expected);
        }
    }
}
