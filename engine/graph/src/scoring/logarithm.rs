//! Binary logarithms in whole numbers: equal on every machine, and never falling as the argument rises.
//!
//! Owns [`Uncertainty`], counted in bits: a probability of one half is one bit. Accurate to four millionths of a bit.

/// A probability in billionths.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Probability(pub u32);

impl Probability {
    /// Certainty.
    pub const ONE: Probability = Probability(1_000_000_000);

    /// As a fraction of one.
    #[must_use]
    pub fn as_f64(self) -> f64 {
        f64::from(self.0) / 1e9
    }
}

/// An uncertainty: minus the binary logarithm of a probability, in [`Uncertainty::ONE`]ths.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct Uncertainty(pub(crate) u32);

impl Uncertainty {
    /// The binary digits after the point.
    pub(crate) const SHIFT: u32 = 20;
    /// A probability of one half.
    #[cfg(test)]
    pub(crate) const ONE: Uncertainty = Uncertainty(1 << Uncertainty::SHIFT);
    /// More than the error of a comparison of two ratios: four logarithms, each off by less than five.
    pub(crate) const SLACK: u32 = 20;
    /// The largest uncertainty: probabilities below one in a million count as this.
    pub(crate) const MAX: Uncertainty = Uncertainty(20 << Uncertainty::SHIFT);

    /// Of a probability of `part` in `whole`.
    #[inline]
    pub(crate) fn of_ratio(part: u64, whole: u64) -> Uncertainty {
        if part == 0 {
            return Uncertainty::MAX;
        }
        Uncertainty(log2(whole).saturating_sub(log2(part))).min(Uncertainty::MAX)
    }

    /// The uncertainty of `amount` on a channel that carries `in_flight` already. That amount got through, so only
    /// the rest is uncertain: the difference of the uncertainties of both together and of `in_flight`.
    #[inline]
    pub(crate) fn beside(
        in_flight: u64,
        amount: u64,
        uncertainty: impl Fn(u64) -> Uncertainty,
    ) -> Uncertainty {
        if in_flight == 0 {
            return uncertainty(amount);
        }
        let together = uncertainty(amount.saturating_add(in_flight));
        Uncertainty(together.0.saturating_sub(uncertainty(in_flight).0))
    }

    /// The uncertainty of independent events together.
    pub(crate) fn sum(all: impl Iterator<Item = Uncertainty>) -> Uncertainty {
        Uncertainty(all.fold(0, |sum, bits| sum.saturating_add(bits.0)))
    }

    /// The probability, to about a millionth of it.
    pub(crate) fn probability(self) -> Probability {
        if self == Uncertainty(0) {
            return Probability::ONE;
        }
        // The least number of billionths whose logarithm is high enough.
        let reached = |billionths: u64| log2(1_000_000_000).saturating_sub(log2(billionths)) <= self.0;
        let (mut least, mut most) = (0_u64, 1_000_000_000_u64);
        while least < most {
            let middle = (least + most) / 2;
            if reached(middle) {
                most = middle;
            } else {
                least = middle + 1;
            }
        }
        Probability(least as u32)
    }
}

/// The steps of [`TABLE`] between two powers of two, as a power of two.
const STEPS_SHIFT: u32 = 8;

/// The binary logarithms of `1 + step / 256`, with [`Uncertainty::SHIFT`] digits after the point.
const TABLE: [u32; (1 << STEPS_SHIFT) + 1] = table();

/// Squares a number between one and two once for each digit: where the square passes two, the digit is one.
const fn table() -> [u32; (1 << STEPS_SHIFT) + 1] {
    let mut table = [0; (1 << STEPS_SHIFT) + 1];
    let mut step = 0;
    while step < 1 << STEPS_SHIFT {
        let mut number = ((1 << STEPS_SHIFT) + step as u128) << (62 - STEPS_SHIFT);
        let mut digits = 0;
        let mut place = 0;
        while place < Uncertainty::SHIFT {
            number = (number * number) >> 62;
            digits <<= 1;
            if number >= 1 << 63 {
                number >>= 1;
                digits |= 1;
            }
            place += 1;
        }
        table[step] = digits;
        step += 1;
    }
    table[1 << STEPS_SHIFT] = 1 << Uncertainty::SHIFT;
    table
}

/// The binary logarithm of a number above zero, with [`Uncertainty::SHIFT`] digits after the point; zero for zero.
#[inline]
fn log2(number: u64) -> u32 {
    let number = number.max(1);
    let whole = number.ilog2();
    // The digits after the first, at the top of the word: steps, then the way to the next one.
    let digits = (number << (63 - whole)) << 1;
    let step = (digits >> (64 - STEPS_SHIFT)) as usize;
    let between = (digits << STEPS_SHIFT) >> 32;
    let (low, high) = (u64::from(TABLE[step]), u64::from(TABLE[step + 1]));
    (whole << Uncertainty::SHIFT) + (low + (((high - low) * between) >> 32)) as u32
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn powers_of_two_are_exact() {
        for exponent in 0..64 {
            assert_eq!(log2(1 << exponent), exponent << Uncertainty::SHIFT);
        }
        assert_eq!(Uncertainty::of_ratio(1, 2), Uncertainty::ONE);
        assert_eq!(Uncertainty::of_ratio(0, 2), Uncertainty::MAX);
        assert_eq!(Uncertainty::of_ratio(3, 2), Uncertainty(0));
        for (bits, billionths) in
            [(Uncertainty(0), 1_000_000_000), (Uncertainty::ONE, 500_000_000), (Uncertainty::MAX, 953)]
        {
            assert!(bits.probability().0.abs_diff(billionths) <= 1 + billionths / 200_000, "{bits:?}");
        }
    }

    proptest! {
        #[test]
        fn close_to_the_truth_and_never_falling(number in 1_u64.., shift in 0_u32..64) {
            let number = (number >> shift).max(1);
            let truth = (number as f64).log2() * f64::from(Uncertainty::ONE.0);
            prop_assert!((f64::from(log2(number)) - truth).abs() < 5.0, "{} {}", log2(number), truth);
            prop_assert!(number == u64::MAX || log2(number) <= log2(number + 1));
        }
    }
}
