//! Which arithmetic is used: the fastest by a short probe, or the one that the environment or a builder names.
//!
//! Owns the one run-time choice, made at the first use and logged once, and the sizes from which a batch is worth a
//! leaf's while. Invariant: a backend that the processor lacks is refused, never replaced.

use std::fmt;
use std::str::FromStr;
use std::sync::LazyLock;

use thiserror::Error;

use crate::probe;
use crate::simd::Leaf;

/// The environment variable that names the process's backend.
const VARIABLE: &str = "FULMEN_SECP_BACKEND";

/// An implementation of the arithmetic. All give the same answers.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum Backend {
    /// Eight jobs side by side in AVX-512 registers, products with IFMA.
    Avx512Ifma,
    /// Four jobs side by side in AVX2 registers, field elements as doubles, products with FMA.
    Avx2,
    /// One job after the other in 64-bit words, on every processor; a batch shares inversions and tables.
    Scalar,
    /// libsecp256k1, one job after the other.
    Libsecp256k1,
    /// The code of [`Backend::Avx512Ifma`] over plain integers, each sum checked.
    #[cfg(test)]
    Words52Model,
    /// The code of [`Backend::Avx2`] over plain doubles, each operation checked.
    #[cfg(test)]
    DoublesModel,
}

/// A backend that cannot be had.
#[derive(Clone, Debug, PartialEq, Eq, Error)]
#[non_exhaustive]
pub enum BackendError {
    /// No backend has this name.
    #[error("{0:?} names no secp256k1 backend: avx512ifma, avx2, scalar and libsecp256k1 are known")]
    Unknown(String),
    /// This processor lacks the backend's instructions.
    #[error("this processor lacks the instructions of the secp256k1 backend {0}")]
    Unavailable(Backend),
}

/// A kind of batch.
#[derive(Clone, Copy, Debug)]
pub(crate) enum Work {
    /// Signatures by keys without tables.
    Verify,
    /// Square roots.
    Parse,
    /// Multiples of the generator.
    Offset,
    /// Multiples of other points, and sums of two.
    Multiply,
}

impl Backend {
    /// Every backend, the one with the most lanes first.
    pub const ALL: [Backend; 4] =
        [Backend::Avx512Ifma, Backend::Avx2, Backend::Scalar, Backend::Libsecp256k1];

    /// The process's backend: the one that `FULMEN_SECP_BACKEND` names or else the fastest by a probe, which takes some
    /// milliseconds at the first call.
    ///
    /// # Errors
    ///
    /// The variable names no backend, or one that the processor lacks.
    pub fn from_environment() -> Result<Backend, BackendError> {
        static SELECTED: LazyLock<Result<Backend, BackendError>> = LazyLock::new(|| {
            let forced = std::env::var(VARIABLE).ok();
            let backend = select(forced.as_deref())?;
            tracing::info!(%backend, ?forced, "secp256k1 backend");
            Ok(backend)
        });
        SELECTED.clone()
    }

    /// As [`Backend::from_environment`], for a process that has called it.
    ///
    /// # Panics
    ///
    /// Where that is an error.
    #[must_use]
    pub fn selected() -> Backend {
        match Backend::from_environment() {
            Ok(backend) => backend,
            Err(error) => panic!("{VARIABLE}: {error}"),
        }
    }

    /// Whether this processor can run it.
    #[must_use]
    pub fn is_available(self) -> bool {
        self == Backend::Libsecp256k1 || self.leaf().is_some()
    }

    /// The backend, if this processor can run it.
    ///
    /// # Errors
    ///
    /// It cannot.
    pub fn available(self) -> Result<Backend, BackendError> {
        if self.is_available() { Ok(self) } else { Err(BackendError::Unavailable(self)) }
    }

    /// The name that the environment and command lines use.
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            Backend::Avx512Ifma => "avx512ifma",
            Backend::Avx2 => "avx2",
            Backend::Scalar => "scalar",
            Backend::Libsecp256k1 => "libsecp256k1",
            #[cfg(test)]
            Backend::Words52Model => "words52-model",
            #[cfg(test)]
            Backend::DoublesModel => "doubles-model",
        }
    }

    /// The leaf, if this backend has one that the processor can run.
    pub(crate) fn leaf(self) -> Option<Leaf> {
        match self {
            Backend::Avx512Ifma => Leaf::ifma(),
            Backend::Avx2 => Leaf::avx2(),
            Backend::Scalar => Some(Leaf::words64()),
            Backend::Libsecp256k1 => None,
            #[cfg(test)]
            Backend::Words52Model => Some(Leaf::words52_model()),
            #[cfg(test)]
            Backend::DoublesModel => Some(Leaf::doubles_model()),
        }
    }

    /// The leaf, if a batch of so many jobs is faster there than in libsecp256k1.
    pub(crate) fn leaf_for(self, work: Work, jobs: usize) -> Option<Leaf> {
        // Measured by `bench/peers verify`; `usize::MAX` where libsecp256k1 is faster whatever the size.
        let jobs_min = match (self, work) {
            (Backend::Scalar, Work::Verify) => 8,
            (Backend::Scalar, Work::Parse) => usize::MAX,
            (Backend::Scalar, Work::Multiply) => 6,
            (Backend::Avx2, Work::Parse) => 3,
            (_, Work::Offset) => 1,
            _ => 2,
        };
        if jobs >= jobs_min { self.leaf() } else { None }
    }
}

impl fmt::Display for Backend {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}

impl FromStr for Backend {
    type Err = BackendError;

    fn from_str(name: &str) -> Result<Backend, BackendError> {
        let found = Backend::ALL.into_iter().find(|backend| backend.name() == name);
        found.ok_or_else(|| BackendError::Unknown(name.to_owned()))
    }
}

fn select(forced: Option<&str>) -> Result<Backend, BackendError> {
    match forced {
        Some(name) if !name.is_empty() => name.parse::<Backend>()?.available(),
        _ => Ok(fastest()),
    }
}

fn fastest() -> Backend {
    let (backends, leaves): (Vec<Backend>, Vec<Leaf>) =
        Backend::ALL.into_iter().filter_map(|backend| Some((backend, backend.leaf()?))).unzip();
    probe::fastest(&leaves).map_or(Backend::Libsecp256k1, |index| backends[index])
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_environment_can_force_any_backend_that_there_is() {
        for backend in Backend::ALL {
            assert_eq!(backend.name().parse(), Ok(backend));
            let expected =
                if backend.is_available() { Ok(backend) } else { Err(BackendError::Unavailable(backend)) };
            assert_eq!(select(Some(backend.name())), expected);
        }
        assert!(Backend::Scalar.is_available() && Backend::Libsecp256k1.is_available());
        assert_eq!(select(Some("avx1024")), Err(BackendError::Unknown("avx1024".into())));
        assert_eq!(
            select(Some("avx1024")).unwrap_err().to_string(),
            "\"avx1024\" names no secp256k1 backend: avx512ifma, avx2, scalar and libsecp256k1 are known"
        );
    }

    #[test]
    fn the_probe_finds_a_backend_that_there_is() {
        assert!(select(None).unwrap().is_available());
        assert!(select(Some("")).unwrap().is_available());
    }
}
