//! Landed bytes to published slots, without a network: the bytes are put where a receive would land them.
