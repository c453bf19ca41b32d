//! Which arithmetic is used: lanes where the processor has them, unless libsecp256k1 is asked for.
//!
//! Owns the one run-time choice. It is made at the first use and logged once.

use std::sync::LazyLock;

use crate::simd::Leaf;

/// An implementation of the arithmetic. All give the same answers.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum Backend {
    /// Eight jobs side by side in AVX-512 registers, products with IFMA.
    Avx512Ifma,
    /// The code of [`Backend::Avx512Ifma`] over lanes in plain integers.
    #[cfg(test)]
    Words52Model,
    /// libsecp256k1, one job after the other.
    Libsecp256k1,
}

impl Backend {
    /// The fastest this processor has; [`Backend::Libsecp256k1`] if the environment variable `FULMEN_SECP_BACKEND` says
    /// `libsecp256k1`. The same for the life of the process.
    #[must_use]
    pub fn selected() -> Backend {
        static SELECTED: LazyLock<Backend> = LazyLock::new(|| {
            let forced = std::env::var("FULMEN_SECP_BACKEND").ok();
            let backend = select(forced.as_deref());
            tracing::info!(?backend, ?forced, "secp256k1 backend");
            backend
        });
        *SELECTED
    }

    /// Whether this processor can run it.
    #[must_use]
    pub fn is_available(self) -> bool {
        self == Backend::Libsecp256k1 || self.leaf().is_some()
    }

    /// Leave to use the lanes, if this backend does and the processor has them.
    pub(crate) fn leaf(self) -> Option<Leaf> {
        match self {
            Backend::Avx512Ifma => Leaf::ifma(),
            #[cfg(test)]
            Backend::Words52Model => Some(Leaf::words52_model()),
            Backend::Libsecp256k1 => None,
        }
    }
}

fn select(forced: Option<&str>) -> Backend {
    match forced {
        Some("libsecp256k1") => Backend::Libsecp256k1,
        Some(other) if other != "avx512ifma" => {
            tracing::warn!(other, "unknown FULMEN_SECP_BACKEND: libsecp256k1 and avx512ifma are known");
            fastest()
        }
        _ => fastest(),
    }
}

fn fastest() -> Backend {
    if Backend::Avx512Ifma.is_available() { Backend::Avx512Ifma } else { Backend::Libsecp256k1 }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_environment_can_force_libsecp256k1_only() {
        assert_eq!(select(Some("libsecp256k1")), Backend::Libsecp256k1);
        assert_eq!(select(Some("avx512ifma")), fastest());
        assert_eq!(select(Some("")), fastest());
        assert_eq!(select(None), fastest());
        assert!(fastest().is_available() && Backend::Libsecp256k1.is_available());
    }
}
