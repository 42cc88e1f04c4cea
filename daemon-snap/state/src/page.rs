//! Pages.

/// Bytes of a page on x86-64.
pub const PAGE_BYTES: u64 = 4096;
