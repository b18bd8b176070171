//! The control API: HTTP/JSON on a Unix socket.
