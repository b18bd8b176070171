//! Clients that talk to a version over HTTP, and what its server and shifter say of that.

use std::{collections::BTreeMap, net::SocketAddr, thread};

use shifter_common::wire::ObservedStatus;

use crate::{
    backend::Backend,
    http::{ask, connect},
    netns::Inside,
};

/// Responses that are not zero.
pub fn classes(seen: &ObservedStatus) -> BTreeMap<String, u64> {
    let rows = seen.responses.iter().filter(|(_, count)| *count > 0);
    rows.cloned().collect()
}

/// What a server has written down, in the same form. What it was asked before the dataplane was there is
/// `earlier`.
pub fn logged(server: &Backend, earlier: &BTreeMap<u16, u64>) -> BTreeMap<String, u64> {
    let mut classes = BTreeMap::new();
    for (status, count) in server.statuses() {
        let count = count - earlier.get(&status).copied().unwrap_or(0);
        if count > 0 {
            *classes.entry(format!("{}xx", status / 100)).or_default() += count;
        }
    }
    classes
}

/// Clients beside each other, each with some connections of several requests.
///
/// # Panics
/// If nobody accepts a connection.
pub fn converse(client: &Inside, target: SocketAddr, clients_count: u32) {
    client.run(|| {
        thread::scope(|scope| {
            for nth in 0..clients_count {
                scope.spawn(move || {
                    for connection in 0..6 {
                        let mut stream = connect(target).expect("a connection");
                        for request in 0..20 {
                            let (method, path) = match (nth + connection + request) % 5 {
                                0 => ("TRACE", "/"),
                                3 => ("GET", "/ready"),
                                _ => ("GET", "/"),
                            };
                            if ask(&mut stream, method, path, None).is_err() {
                                // The server may close after an error.
                                stream = connect(target).expect("a connection");
                            }
                        }
                    }
                });
            }
        });
    });
}

/// Loses some of the answers of port 80, behind the packet path: they are sent again through it.
///
/// # Panics
/// If there is no nft.
pub fn drop_answers(client: &Inside) {
    let script = "add table inet lossy\n\
         add chain inet lossy in { type filter hook input priority 0 ; }\n\
         add rule inet lossy in tcp sport 80 numgen random mod 100 < 4 drop\n";
    client.tool_with_input("nft", &["-f", "-"], script);
}
