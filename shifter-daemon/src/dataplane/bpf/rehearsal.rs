//! Places at which a rehearsed daemon dies or fails if its test says so. In any other build there are
//! none.

use super::super::DataplaneError;

/// A place with a name.
///
/// # Errors
/// If the test says so: `SHIFTER_REHEARSE_FAIL` names the place, as `SHIFTER_REHEARSE_KILL` names the
/// one to be killed at, and `SHIFTER_REHEARSE_WAIT` the one to wait at: a file is made there whose name
/// is in `SHIFTER_REHEARSE_FILE`, and the daemon goes on when that is gone.
#[cfg(feature = "rehearsal")]
pub fn place(name: &str) -> Result<(), DataplaneError> {
    let is_named = |variable| std::env::var(variable).is_ok_and(|named| named == name);
    if is_named("SHIFTER_REHEARSE_KILL") {
        tracing::warn!("killed at {name}");
        let _ = nix::sys::signal::raise(nix::sys::signal::Signal::SIGKILL);
    }
    if is_named("SHIFTER_REHEARSE_WAIT")
        && let Some(file) = std::env::var_os("SHIFTER_REHEARSE_FILE").map(std::path::PathBuf::from)
        && std::fs::write(&file, name).is_ok()
    {
        let end = std::time::Instant::now() + std::time::Duration::from_secs(60);
        while file.exists() && std::time::Instant::now() < end {
            std::thread::sleep(std::time::Duration::from_millis(2));
        }
    }
    if is_named("SHIFTER_REHEARSE_FAIL") {
        return Err(DataplaneError::Refused(format!(
            "rehearsed failure at {name}"
        )));
    }
    Ok(())
}

/// Nothing.
#[cfg(not(feature = "rehearsal"))]
#[allow(
    clippy::unnecessary_wraps,
    reason = "it fails only where it is rehearsed"
)]
pub const fn place(_name: &str) -> Result<(), DataplaneError> {
    Ok(())
}

/// The kernel object, with other instructions if the test says so: `SHIFTER_REHEARSE_CODE` is the number
/// that stands in them.
#[cfg(feature = "rehearsal")]
pub fn object(object: &'static [u8]) -> std::borrow::Cow<'static, [u8]> {
    let number = std::env::var("SHIFTER_REHEARSE_CODE").ok();
    let Some(number) = number.and_then(|text| text.parse::<u32>().ok()) else {
        return object.into();
    };
    let mark = shifter_common::abi::REHEARSAL_MARK.to_ne_bytes();
    let mut changed = object.to_vec();
    let places: Vec<usize> = changed
        .windows(mark.len())
        .enumerate()
        .filter_map(|(at, window)| (window == mark).then_some(at))
        .collect();
    for at in places {
        changed[at..at + mark.len()].copy_from_slice(&number.to_ne_bytes());
    }
    changed.into()
}

/// The kernel object.
#[cfg(not(feature = "rehearsal"))]
pub const fn object(object: &'static [u8]) -> std::borrow::Cow<'static, [u8]> {
    std::borrow::Cow::Borrowed(object)
}
