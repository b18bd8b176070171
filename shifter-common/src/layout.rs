//! What the maps hold, field by field, as data.
//!
//! Every dataplane carries this description in its map `LAYOUT`, so that a shifterd of another
//! version, older or newer, can carry over what it did not write. A field is known by its name: the
//! same name means the same thing in every version, and a field that changes its meaning takes
//! another name. Offsets and sizes may change freely.

use core::mem::offset_of;

use crate::{
    abi::{
        BackendCounters, BackendEntry, BackendService, FlowEntry, FlowKey, ServiceEntry,
        SlotCounters, VIPS_PER_SERVICE, VipEntry, VipKey, map,
    },
    verdict::Verdict,
};

/// What it means when a field stands in one version and not in another.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Need {
    /// Nothing works without it: a version that lacks it cannot be replaced by this one.
    Required,
    /// Zero is right where it was not known, and nothing is wrong where it is forgotten.
    Optional,
    /// Zero is right where it was not known, but only zero may be forgotten.
    Binding,
}

/// One field of a key or value.
#[derive(Clone, Copy, Debug)]
pub struct Field {
    /// Its name, the same in every version.
    pub name: &'static str,
    /// Where it begins.
    pub offset_bytes: usize,
    /// How long it is.
    pub len_bytes: usize,
    /// Whether it may be missing.
    pub need: Need,
}

/// How the elements of a map are found.
#[derive(Clone, Copy, Debug)]
pub enum Index {
    /// By a key.
    Key(&'static [Field]),
    /// By a number made of these axes, the last one fastest; the first one has as many places as
    /// the map has room for, the others as many as stand here.
    Axes(&'static [(&'static str, u32)]),
    /// By the place of a name in this list.
    Names(&'static [&'static str]),
}

/// How the elements of a map are carried over.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Content {
    /// What the daemon writes: copied while nobody else writes it.
    State,
    /// Flows: copied while the kernel programs go on changing them.
    Flows,
    /// Per-CPU counters of 64 bits: added up.
    Counters,
}

/// One map.
#[derive(Clone, Copy, Debug)]
pub struct Layout {
    /// Its name.
    pub map: &'static str,
    /// What it holds.
    pub content: Content,
    /// How its elements are found.
    pub index: Index,
    /// Its values.
    pub value: &'static [Field],
}

const fn len_bytes_of<T, F>(_: fn(&T) -> &F) -> usize {
    size_of::<F>()
}

/// Refuses, while this is compiled, a list that does not cover the type: whoever adds a field has to
/// say here what it means to other versions.
const fn covering<T>(fields: &[Field]) {
    let mut sum = 0;
    let mut index = 0;
    while index < fields.len() {
        sum += fields[index].len_bytes;
        index += 1;
    }
    assert!(sum == size_of::<T>(), "a field is missing in layout.rs");
}

macro_rules! fields {
    ($(#[$attribute:meta])* $name:ident: $type:ty {
        $($(#[$when:meta])* $first:ident $(. $rest:ident)* $(: $need:ident)?,)+
    }) => {
        $(#[$attribute])*
        const $name: &[Field] = &[$(
            $(#[$when])*
            Field {
                name: concat!(stringify!($first) $(, ".", stringify!($rest))*),
                offset_bytes: offset_of!($type, $first $(. $rest)*),
                len_bytes: len_bytes_of(|whole: &$type| &whole.$first $(. $rest)*),
                need: fields!(@need $($need)?),
            },
        )+];
        const _: () = covering::<$type>($name);
    };
    (@need) => { Need::Required };
    (@need $need:ident) => { Need::$need };
}

fields!(VIP_KEY: VipKey { addr, port, protocol, pad: Optional, });
fields!(VIP: VipEntry { service, ordinal, vip_count, is_retired, plane: Binding, });
fields!(BACKEND_SERVICE: BackendService { service, vip_count, pad: Optional, });
fields!(SERVICE: ServiceEntry { seed, policy, name_len_bytes, name, });
fields!(BACKEND: BackendEntry {
    addr, port, slot, state, service, backend_id, version_id,
});
fields!(FLOW_KEY: FlowKey { client, service, client_port, protocol, vip_ordinal, });
fields!(FLOW: FlowEntry {
    backend, backend_index, backend_port, cohort, flags,
    #[cfg(feature = "rehearsal")]
    rehearsal: Optional,
    phase, last_seen_ticks, next_from_client, next_from_backend,
});
fields!(SLOT_COUNTERS: SlotCounters {
    #[cfg(feature = "rehearsal")]
    rehearsal: Optional,
    flows.selected: Optional, flows.established: Optional, flows.refused: Optional,
    flows.closed: Optional, flows.reset_by_client: Optional, flows.reset_by_backend: Optional,
    flows.unanswered: Optional,
    failed_over: Optional, unserved: Optional, targeted: Optional,
});
fields!(BACKEND_COUNTERS: BackendCounters {
    flows.selected: Optional, flows.established: Optional, flows.refused: Optional,
    flows.closed: Optional, flows.reset_by_client: Optional, flows.reset_by_backend: Optional,
    flows.unanswered: Optional,
    packets_in: Optional, bytes_in: Optional, packets_out: Optional, bytes_out: Optional,
});

/// A value that is one number.
const fn number(name: &'static str, len_bytes: usize) -> Field {
    Field {
        name,
        offset_bytes: 0,
        len_bytes,
        need: Need::Required,
    }
}

const VERDICTS: [&str; Verdict::COUNT as usize] = {
    let mut names = [""; Verdict::COUNT as usize];
    let mut index = 0;
    while index < names.len() {
        names[index] = Verdict::ALL[index].label();
        index += 1;
    }
    names
};

/// What is carried over from one version to another. Other maps start empty: the daemon writes their
/// content anew at every start, or they hold nothing that outlives a moment.
pub const ALL: &[Layout] = &[
    state(map::SERVICES, Index::Axes(&[("service", 0)]), SERVICE),
    state(
        map::STEERING,
        Index::Axes(&[("service", 0)]),
        &[number("steering_word", 8)],
    ),
    state(map::BACKENDS, Index::Axes(&[("backend", 0)]), BACKEND),
    state(map::BACKEND_SERVICES, Index::Key(VIP_KEY), BACKEND_SERVICE),
    state(
        map::TABLES,
        Index::Axes(&[("pair", 0)]),
        &[number("backend_index_pair", 8)],
    ),
    state(
        map::REGIONS,
        Index::Axes(&[("service", 0), ("family", 2), ("slot", 2), ("bank", 2)]),
        &[number("size_and_base", 8)],
    ),
    state(
        map::VIP_ADDRS,
        Index::Axes(&[("service", 0), ("ordinal", VIPS_PER_SERVICE)]),
        VIP_KEY,
    ),
    state(map::VIPS, Index::Key(VIP_KEY), VIP),
    flows(map::PENDING),
    flows(map::FLOWS),
    counters(
        map::VERDICTS,
        Index::Names(&VERDICTS),
        &[number("packets", 8)],
    ),
    counters(
        map::TABLE_TRAFFIC,
        Index::Axes(&[("traffic", 0)]),
        &[number("entries", 8)],
    ),
    counters(
        map::SLOT_COUNTERS,
        Index::Axes(&[("service", 0), ("slot", 2)]),
        SLOT_COUNTERS,
    ),
    counters(
        map::BACKEND_COUNTERS,
        Index::Axes(&[("backend", 0)]),
        BACKEND_COUNTERS,
    ),
];

const fn state(map: &'static str, index: Index, value: &'static [Field]) -> Layout {
    Layout {
        map,
        content: Content::State,
        index,
        value,
    }
}

const fn flows(map: &'static str) -> Layout {
    Layout {
        map,
        content: Content::Flows,
        index: Index::Key(FLOW_KEY),
        value: FLOW,
    }
}

const fn counters(map: &'static str, index: Index, value: &'static [Field]) -> Layout {
    Layout {
        map,
        content: Content::Counters,
        index,
        value,
    }
}
