//! Tests of whole files.

mod conflicts;
mod differences;
mod documents;
mod problems;
mod rollouts;
mod specs;

use super::Diagnostic;

/// A service file with nothing but what must be in it.
const SERVICE: &str = r#"[service]
name = "orders"
vip = "10.0.0.10:443"
[slot.a]
backends = ["10.0.0.11:8443"]
"#;

/// A node file with nothing but what must be in it.
const NODE: &str = r#"[[interface]]
name = "eth0"
"#;

/// Problems as they are printed.
fn printed(diagnostics: &[Diagnostic]) -> String {
    diagnostics
        .iter()
        .map(|diagnostic| format!("{diagnostic}\n"))
        .collect()
}
