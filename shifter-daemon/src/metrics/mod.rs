//! The Prometheus endpoint.

#[cfg(test)]
pub(crate) mod sample;
