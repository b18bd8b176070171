//! Connections that live long, of programs that people run: none breaks while their service is
//! shifted and rolled back, and every one stays with the version it began with.

mod postgres;
mod redis;
mod ssh;
mod stage;
mod upload;
mod websocket;
