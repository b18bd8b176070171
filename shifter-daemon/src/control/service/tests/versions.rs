//! When a slot is another version's.

use super::*;

#[test]
fn a_slot_is_another_versions_when_none_of_its_servers_is_left() {
    // What slot b had, what it has, whether that is another version.
    const ROWS: &[(&[&str], &[&str], bool)] = &[
        (&["10.2.0.1:80"], &["10.2.0.1:80"], false),
        (&["10.2.0.1:80"], &["10.2.0.1:80*5"], false),
        (&["10.2.0.1:80"], &["10.2.0.2:80", "10.2.0.1:80"], false),
        (&["10.2.0.1:80", "10.2.0.2:80"], &["10.2.0.2:80"], false),
        (&["10.2.0.1:80"], &["10.2.0.1:81"], true),
        (&["10.2.0.1:80"], &["10.2.0.2:80", "10.2.0.3:80"], true),
        (&["10.2.0.1:80"], &[], false),
        (&[], &["10.2.0.1:80"], true),
    ];
    for (before, after, is_another) in ROWS {
        let mut control = ServiceControl::new(spec(V4, ONE_EACH[0], before), None, None);
        let of_new = control.slots_without_version();
        assert_eq!(of_new.contains(&Slot::B), !before.is_empty());
        assert!(of_new.contains(&Slot::A));
        control.give_slot(Slot::A, 4);
        control.give_slot(Slot::B, 5);
        assert_eq!(control.slots_without_version(), []);
        control.respec(spec(V4, ONE_EACH[0], after));
        let expected: &[Slot] = if *is_another { &[Slot::B] } else { &[] };
        assert_eq!(
            control.slots_without_version(),
            expected,
            "{before:?} -> {after:?}"
        );
        for slot in control.slots_without_version() {
            control.give_slot(slot, 6);
        }
        let ids = control.plan().slots.map(|slot| slot.version_id);
        assert_eq!(ids, [4, if *is_another { 6 } else { 5 }]);
    }
}
