//! A GET of a URL.

use bytes::Bytes;
use http_body_util::{BodyExt as _, Empty, Limited};
use hyper::{
    Request, Uri,
    client::conn::http1,
    header::{CONNECTION, HOST, USER_AGENT},
};
use hyper_util::rt::TokioIo;
use tokio::net::TcpStream;

use super::said;

/// Bytes of a body that are read at most.
const READ_LIMIT_BYTES: usize = 4 * 1_024;

/// Asks once; a status of 200 to 299 is a yes.
///
/// # Errors
/// What the answer was, or why there is none.
pub async fn get(url: &str) -> Result<(), String> {
    let uri: Uri = url
        .parse()
        .map_err(|error| format!("{url} is no URL: {error}"))?;
    let authority = uri
        .authority()
        .ok_or_else(|| format!("{url} names no host"))?;
    let host = authority
        .host()
        .trim_start_matches('[')
        .trim_end_matches(']');
    let port = authority.port_u16().unwrap_or(80);
    let stream = TcpStream::connect((host, port)).await;
    let stream = stream.map_err(|error| format!("cannot connect to {authority}: {error}"))?;
    let failed = |error: hyper::Error| format!("{authority} did not answer: {error}");
    let (mut sender, connection) = http1::handshake(TokioIo::new(stream))
        .await
        .map_err(failed)?;
    // Ends with the exchange.
    let connection = tokio::spawn(connection);
    let path = uri.path_and_query().map_or("/", |path| path.as_str());
    let request = Request::get(path)
        .header(HOST, authority.as_str())
        .header(USER_AGENT, concat!("shifterd/", env!("CARGO_PKG_VERSION")))
        .header(CONNECTION, "close")
        .body(Empty::<Bytes>::new())
        .map_err(|error| format!("{url} cannot be asked: {error}"))?;
    let response = sender.send_request(request).await.map_err(failed)?;
    let status = response.status();
    if status.is_success() {
        connection.abort();
        return Ok(());
    }
    let body = Limited::new(response.into_body(), READ_LIMIT_BYTES)
        .collect()
        .await;
    connection.abort();
    let text = body.map_or_else(|_| String::new(), |body| said(&body.to_bytes()));
    Err(match text.as_str() {
        "" => format!("HTTP {}", status.as_u16()),
        text => format!("HTTP {}: {text}", status.as_u16()),
    })
}
