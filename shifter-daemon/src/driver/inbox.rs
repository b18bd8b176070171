//! Everything the loop waits for, one input at a time.

use std::time::Duration;

use tokio::{
    sync::mpsc,
    task::yield_now,
    time::{Instant, Interval, MissedTickBehavior, interval, interval_at},
};

use super::{Call, rollout::News, sweep::Swept};
use crate::probe::ProbeEvent;

/// Results of probes that are taken together.
pub const PROBES_AT_ONCE_COUNT: usize = 1_024;

/// What the loop has to deal with next.
#[derive(Debug)]
pub enum Input {
    /// Results of probes, in the order they came; at least one.
    Probes(Vec<ProbeEvent>),
    /// A request.
    Call(Call),
    /// There will be no more requests.
    Closed,
    /// A sweep has ended.
    Swept(Swept),
    /// Something happened to a rollout.
    Rollout(News),
    /// Time to look at what became of flows.
    Look,
    /// Time for what is done regularly.
    Tick,
}

/// The queues the loop reads.
///
/// Results of probes go before everything an operator may ask, because a backend that fails takes
/// flows down with it. But after each handful of them everything else gets its turn, one input of
/// whatever kind, so that no flood of probes can keep operators out.
pub struct Inbox {
    calls: mpsc::Receiver<Call>,
    probes: mpsc::Receiver<ProbeEvent>,
    swept: mpsc::Receiver<Swept>,
    news: mpsc::Receiver<News>,
    tick: Interval,
    look: Interval,
    /// Whether probes were the last to have a turn.
    probes_had_turn: bool,
}

impl Inbox {
    /// An inbox whose ticks and looks are this far apart; the first tick is at once, the first look
    /// when there can be something new.
    ///
    /// Must be called within a tokio runtime.
    pub fn new(
        calls: mpsc::Receiver<Call>,
        probes: mpsc::Receiver<ProbeEvent>,
        swept: mpsc::Receiver<Swept>,
        news: mpsc::Receiver<News>,
        [tick, look]: [Duration; 2],
    ) -> Self {
        let mut tick = interval(tick);
        let mut look = interval_at(Instant::now() + look, look);
        for interval in [&mut tick, &mut look] {
            interval.set_missed_tick_behavior(MissedTickBehavior::Skip);
        }
        Self {
            calls,
            probes,
            swept,
            news,
            tick,
            look,
            probes_had_turn: false,
        }
    }

    /// Waits for the next input.
    pub async fn next(&mut self) -> Input {
        let Self {
            calls,
            probes,
            swept,
            news,
            tick,
            look,
            probes_had_turn,
        } = self;
        let mut batch = Vec::new();
        loop {
            let others = async {
                tokio::select! {
                    call = calls.recv() => call.map_or(Input::Closed, Input::Call),
                    Some(swept) = swept.recv() => Input::Swept(swept),
                    Some(news) = news.recv() => Input::Rollout(news),
                    _ = tick.tick() => Input::Tick,
                    _ = look.tick() => Input::Look,
                }
            };
            let may_speak = !probes.is_closed() || !probes.is_empty();
            tokio::select! {
                biased;
                _ = probes.recv_many(&mut batch, PROBES_AT_ONCE_COUNT), if may_speak && !*probes_had_turn => {
                    *probes_had_turn = true;
                    if !batch.is_empty() {
                        return Input::Probes(batch);
                    }
                }
                input = others => {
                    *probes_had_turn = false;
                    return input;
                }
                // Nobody else has anything. Yielding also renews the budget without which tokio
                // keeps from a busy task what is ready for it.
                () = yield_now(), if *probes_had_turn => *probes_had_turn = false,
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use std::{collections::BTreeMap, net::SocketAddr};

    use super::*;
    use crate::{
        dataplane::Census,
        driver::{DriverHandle, Request},
        model::Slot,
        probe::TargetKey,
    };

    fn event(port: u16) -> ProbeEvent {
        let addr = SocketAddr::from(([10, 0, 0, 1], port));
        let now = std::time::Instant::now();
        ProbeEvent {
            key: TargetKey {
                service: "orders".into(),
                slot: Slot::A,
                addr,
            },
            ready: true,
            reason: String::new(),
            caused_at: now,
            decided_at: now,
        }
    }

    fn name(input: &Input) -> &'static str {
        match input {
            Input::Probes(_) => "probes",
            Input::Call(_) => "call",
            Input::Closed => "closed",
            Input::Swept(_) => "swept",
            Input::Rollout(_) => "rollout",
            Input::Look => "look",
            Input::Tick => "tick",
        }
    }

    struct Senders {
        handle: DriverHandle,
        probes: mpsc::Sender<ProbeEvent>,
        swept: mpsc::Sender<Swept>,
    }

    fn inbox(probes_count: usize) -> (Inbox, Senders) {
        let (handle, calls) = DriverHandle::channel(64);
        let (probes, probe_events) = mpsc::channel(probes_count);
        let (swept, sweeps) = mpsc::channel(1);
        let inbox = Inbox::new(
            calls,
            probe_events,
            sweeps,
            mpsc::channel(1).1,
            [Duration::from_secs(10), Duration::from_secs(4)],
        );
        (
            inbox,
            Senders {
                handle,
                probes,
                swept,
            },
        )
    }

    fn swept() -> Swept {
        Swept {
            publications_count: 0,
            census: Ok(Census::default()),
        }
    }

    /// Keeps calls waiting until the handle is gone.
    fn call_on(senders: &Senders) {
        let handle = senders.handle.clone();
        tokio::spawn(async move {
            handle
                .call(Request::Status, None, std::time::Instant::now())
                .await
        });
    }

    #[tokio::test(start_paused = true)]
    async fn probes_go_first() {
        let (mut inbox, senders) = inbox(4);
        call_on(&senders);
        senders.swept.try_send(swept()).expect("room");
        senders.probes.try_send(event(1)).expect("room");
        senders.probes.try_send(event(2)).expect("room");
        yield_now().await;
        match inbox.next().await {
            Input::Probes(events) => {
                let ports: Vec<u16> = events.iter().map(|event| event.key.addr.port()).collect();
                assert_eq!(ports, [1, 2], "in order, and together");
            }
            other => panic!("{other:?}"),
        }
    }

    /// The queue of probes is filled up again before every turn.
    #[tokio::test(start_paused = true)]
    async fn a_flood_of_probes_keeps_nobody_out() {
        let capacity = 3 * PROBES_AT_ONCE_COUNT;
        let (mut inbox, senders) = inbox(capacity);
        call_on(&senders);
        senders.swept.try_send(swept()).expect("room");
        yield_now().await;
        let mut turns: BTreeMap<&str, Vec<usize>> = BTreeMap::new();
        for turn in 0..10 {
            while senders.probes.try_send(event(1)).is_ok() {}
            let input = inbox.next().await;
            if let Input::Probes(events) = &input {
                assert_eq!(events.len(), PROBES_AT_ONCE_COUNT);
            }
            turns.entry(name(&input)).or_default().push(turn);
        }
        assert_eq!(turns["probes"], [0, 2, 4, 6, 7, 8, 9], "{turns:?}");
        let mut others: Vec<_> = ["call", "swept", "tick"]
            .map(|who| turns[who].clone())
            .concat();
        others.sort_unstable();
        assert_eq!(others, [1, 3, 5], "{turns:?}");
    }

    /// Tokio grants a task a budget of 128 reads a turn, a multiple of which a flood may exhaust
    /// each time exactly when others would have had their turn.
    #[tokio::test(start_paused = true)]
    async fn calls_are_answered_at_every_size_of_a_flood() {
        for burst_count in [1, 2, 63, 64, 127, 128, 129, 256, PROBES_AT_ONCE_COUNT] {
            let (mut inbox, senders) = inbox(burst_count);
            for _ in 0..20 {
                call_on(&senders);
            }
            yield_now().await;
            let mut calls_count = 0;
            for _ in 0..60 {
                while senders.probes.try_send(event(1)).is_ok() {}
                calls_count += u32::from(matches!(inbox.next().await, Input::Call(_)));
            }
            assert_eq!(calls_count, 20, "bursts of {burst_count}");
        }
    }

    #[tokio::test(start_paused = true)]
    async fn the_end_of_the_calls_is_seen_in_a_flood() {
        let (mut inbox, senders) = inbox(8);
        assert_eq!(name(&inbox.next().await), "tick");
        drop(senders.handle);
        senders.probes.try_send(event(1)).expect("room");
        assert_eq!(name(&inbox.next().await), "probes");
        senders.probes.try_send(event(1)).expect("room");
        assert_eq!(name(&inbox.next().await), "closed");
    }

    #[tokio::test(start_paused = true)]
    async fn without_probes_the_others_go_on() {
        let (
            mut inbox,
            Senders {
                handle: _handle,
                probes,
                swept: sweeps,
            },
        ) = inbox(8);
        probes.try_send(event(1)).expect("room");
        drop(probes);
        let begin = Instant::now();
        assert_eq!(name(&inbox.next().await), "probes");
        assert_eq!(name(&inbox.next().await), "tick");
        sweeps.try_send(swept()).expect("room");
        assert_eq!(name(&inbox.next().await), "swept");
        assert_eq!(begin.elapsed(), Duration::ZERO);
        assert_eq!(name(&inbox.next().await), "look");
        assert_eq!(begin.elapsed(), Duration::from_secs(4));
        assert_eq!(name(&inbox.next().await), "look");
        assert_eq!(name(&inbox.next().await), "tick");
        assert_eq!(
            begin.elapsed(),
            Duration::from_secs(10),
            "one interval later, not at once"
        );
    }
}
