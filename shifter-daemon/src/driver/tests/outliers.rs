//! Backends that fail where their peers do not.

use super::session::Session;

const FILES: &[(&str, &str)] = &[(
    "orders.toml",
    "[service]\nname = \"orders\"\nvip = \"10.0.0.10:80\"\n[outlier]\n\
     [slot.a]\nbackends = [\"10.1.0.1:80\", \"10.1.0.2:80\"]\n\
     [slot.b]\nbackends = [\"10.2.0.1:80\"]\n",
)];

#[tokio::test(start_paused = true)]
async fn a_backend_that_fails_gets_no_new_flows_for_a_while() {
    Session::start(FILES)
        .run(&[
            ("pass 2", ""),
            ("ends orders a 10.1.0.1:80 0 3 2", ""),
            ("ends orders a 10.1.0.2:80 20 0 0", ""),
            ("pass 2", ""),
            (
                "event",
                "shifterd: ejected a: 0 -> 0, stored: slot a: 10.1.0.1:80 ejected for 30 s: 5 errors \
                 in a row",
            ),
            (
                "plan orders",
                "0 bp, a open [10.1.0.2:80], b open [10.2.0.1:80], published 2",
            ),
            ("pass 31", ""),
            (
                "event",
                "shifterd: returned a: 0 -> 0, stored: slot a: 10.1.0.1:80 gets new flows again",
            ),
            (
                "plan orders",
                "0 bp, a open [10.1.0.1:80 10.1.0.2:80], b open [10.2.0.1:80], published 3",
            ),
        ])
        .await;
}

/// A probe may take away the last one that stood in for an ejected backend.
#[tokio::test(start_paused = true)]
async fn an_ejected_backend_serves_when_nobody_else_can() {
    Session::start(FILES)
        .run(&[
            ("pass 2", ""),
            ("ends orders a 10.1.0.1:80 0 5 0", ""),
            ("pass 2", ""),
            (
                "plan orders",
                "0 bp, a open [10.1.0.2:80], b open [10.2.0.1:80], published 2",
            ),
            ("fails orders a 10.1.0.2:80 status 503", ""),
            (
                "plan orders",
                "0 bp, a open [10.1.0.1:80], b open [10.2.0.1:80], published 3",
            ),
            ("ready orders a 10.1.0.2:80", ""),
            (
                "plan orders",
                "0 bp, a open [10.1.0.2:80], b open [10.2.0.1:80], published 4",
            ),
        ])
        .await;
}

#[tokio::test(start_paused = true)]
async fn an_ejection_that_the_kernel_refuses_is_told_and_tried_again() {
    Session::start(FILES)
        .run(&[
            ("pass 2", ""),
            ("ends orders a 10.1.0.1:80 0 5 0", ""),
            ("refuse no room", ""),
            ("pass 2", ""),
            (
                "event",
                "shifterd: ejected a: 0 -> 0, nothing stored: slot a: 10.1.0.1:80 ejected for 30 s: \
                 5 errors in a row; not in force yet: no room",
            ),
            ("refuse", ""),
            ("pass 10", ""),
            (
                "plan orders",
                "0 bp, a open [10.1.0.2:80], b open [10.2.0.1:80], published 2",
            ),
        ])
        .await;
}
