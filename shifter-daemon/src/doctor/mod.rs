//! Checks of the host, each with the command that mends it.
