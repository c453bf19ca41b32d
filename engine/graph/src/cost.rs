//! The unit in which routes are compared.

/// A cost in thousandths of a millisatoshi: fees, the price of delay, and the terms that [`crate::scoring`] adds. It
/// is compared and never paid. Saturates at `u64::MAX`, more than 180,000 bitcoin.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord)]
pub struct Cost(pub u64);

impl Cost {
    /// One millisatoshi.
    pub const PER_MSAT: u64 = 1000;

    /// The sum, saturating at `u64::MAX`.
    #[must_use]
    pub const fn saturating_add(self, other: Cost) -> Cost {
        Cost(self.0.saturating_add(other.0))
    }
}
