//! Listens on an address again and again, as somebody who would like to get its connections. Prints
//! how often it could, and how many connections came that were not meant for the address itself.

use std::{net::TcpListener, time::Duration};

fn main() {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    let [addr, count] = arguments.as_slice() else {
        eprintln!("usage: shifter-listen ADDRESS:PORT COUNT");
        std::process::exit(2);
    };
    let count: u32 = count.parse().unwrap_or(0);
    let (mut listened_count, mut steered_count) = (0_u32, 0_u32);
    for _ in 0..count {
        if let Ok(listener) = TcpListener::bind(addr.as_str()) {
            listened_count += 1;
            std::thread::sleep(Duration::from_millis(1));
            if listener.set_nonblocking(true).is_ok() {
                while let Ok((stream, _)) = listener.accept() {
                    // Whoever probes the port connects to it and may meet anybody.
                    let (own, at) = (listener.local_addr(), stream.local_addr());
                    let is_probe = own.is_ok_and(|own| at.is_ok_and(|at| at.port() == own.port()));
                    steered_count += u32::from(!is_probe);
                }
            }
        } else {
            std::thread::sleep(Duration::from_millis(1));
        }
    }
    println!("{listened_count} {steered_count}");
}
