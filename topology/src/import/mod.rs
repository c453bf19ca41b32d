//! Import of channel graphs in the shape of lnd's `describegraph` JSON, plain or gzip, in UTF-8 or UTF-16.
//!
//! Reads `nodes[].pub_key` and of each of `edges[]` `channel_id`, `node1_pub`, `node2_pub`, `capacity`, `node1_policy`
//! and `node2_policy`, and ignores every other key. `node1_policy` governs the direction that leaves `node1_pub`.
//! Numbers may be decimal strings or numbers. A policy that is `null` or has no key is absent, and so is each term of
//! one. A node that only an edge names is taken in with it.
//!
//! A capacity that is 0 or absent, as light clients export it, is not stated: the channel gets the largest
//! `max_htlc_msat` of its policies, which is at most its capacity. Two channels of one id are refused.
//!
//! The input is read as a stream: no more of it is held than the topology it becomes. Every error says where it is.

mod encoding;
mod parse;

use std::fmt;
use std::fs::File;
use std::io::{self, BufRead, BufReader, Read};
use std::path::{Path, PathBuf};

use flate2::bufread::MultiGzDecoder;
use serde::de::DeserializeSeed;
use thiserror::Error;

use crate::import::encoding::{Encoding, Utf16Reader};
use crate::import::parse::{GraphSeed, Reading};
use crate::model::{ModelError, Topology};

/// A place in an imported file.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Place {
    /// The file, or a name for another input.
    pub file: String,
    /// The line, from one, of the text (not of its compressed form).
    pub line: usize,
    /// The column, from one.
    pub column: usize,
    /// The node or channel being read.
    pub element: Element,
}

/// The part of a graph that is being read.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Element {
    /// Neither a node nor a channel.
    #[default]
    Graph,
    /// The node at this index of `nodes`.
    Node(usize),
    /// The channel at this index of `edges`.
    Channel(usize),
}

impl fmt::Display for Place {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}, line {}, column {}", self.file, self.line, self.column)?;
        match self.element {
            Element::Graph => Ok(()),
            Element::Node(index) => write!(f, ", node {index}"),
            Element::Channel(index) => write!(f, ", channel {index}"),
        }
    }
}

/// Why a file is no channel graph.
#[derive(Debug, Error)]
#[non_exhaustive]
pub enum ImportError {
    /// The file cannot be opened.
    #[error("{}: cannot be opened: {source}; give the path of a describegraph JSON, plain or .gz", path.display())]
    Open {
        /// The file.
        path: PathBuf,
        /// Why.
        source: io::Error,
    },
    /// The file cannot be read to its end, or is not valid gzip.
    #[error("{file}: cannot be read: {source}")]
    Read {
        /// The file.
        file: String,
        /// Why.
        source: io::Error,
    },
    /// The file is compressed by something else than gzip.
    #[error("{file}: compressed with {format}; unpack it first, or compress it with gzip")]
    Compressed {
        /// The file.
        file: String,
        /// The format.
        format: &'static str,
    },
    /// The file is named like a gzip file and begins neither as one nor as JSON.
    #[error("{file}: neither gzip nor JSON, though its name ends in .gz; export the graph again")]
    NotGzip {
        /// The file.
        file: String,
    },
    /// The text is not JSON, ends early, or goes on after its end.
    #[error("{place}: not valid JSON: {cause}")]
    Syntax {
        /// Where.
        place: Place,
        /// The parser's words.
        cause: String,
    },
    /// The JSON does not have the shape of a channel graph.
    #[error("{place}: not a describegraph: {cause}")]
    Shape {
        /// Where.
        place: Place,
        /// The parser's words.
        cause: String,
    },
    /// A value has another form than its key asks for.
    #[error("{place}: `{key}` must be {expected}, not {value}")]
    Value {
        /// Where.
        place: Place,
        /// The key.
        key: &'static str,
        /// The value, shortened when long.
        value: String,
        /// The form it must have.
        expected: &'static str,
    },
    /// A key that cannot be done without is missing.
    #[error("{place}: `{key}` is missing")]
    Missing {
        /// Where.
        place: Place,
        /// The key.
        key: &'static str,
    },
    /// There are no channels.
    #[error("{file}: the graph has no channels")]
    Empty {
        /// The file.
        file: String,
    },
    /// Nodes and channels do not fit together.
    #[error("{file}: {source}")]
    Model {
        /// The file.
        file: String,
        /// The contradiction.
        source: ModelError,
    },
}

/// Imports a file.
///
/// # Errors
/// When it cannot be read, or is no channel graph.
pub fn import(path: &Path) -> Result<Topology, ImportError> {
    let file = File::open(path).map_err(|source| ImportError::Open { path: path.to_owned(), source })?;
    read(file, &path.display().to_string())
}

/// Imports the bytes of `input`; `file` names it in errors.
///
/// ```
/// let graph = r##"{"nodes": [{"pub_key": "#1"}, {"pub_key": "#2"}],
///     "edges": [{"channel_id": "1", "node1_pub": "#1", "node2_pub": "#2", "capacity": "50000"}]}"##;
/// let topology = fulmen_topology::read(graph.as_bytes(), "graph.json")?;
/// assert_eq!((topology.nodes().len(), topology.channels().len()), (2, 1));
/// # Ok::<(), fulmen_topology::ImportError>(())
/// ```
///
/// # Errors
/// When it cannot be read, or is no channel graph.
pub fn read(input: impl Read, file: &str) -> Result<Topology, ImportError> {
    let mut input = BufReader::with_capacity(BUFFER_BYTES, input);
    let start = input.fill_buf().map_err(|source| ImportError::Read { file: file.to_owned(), source })?;
    if let Some((_, format)) = OTHER_FORMATS.iter().find(|(magic, _)| start.starts_with(magic)) {
        return Err(ImportError::Compressed { file: file.to_owned(), format });
    }
    if start.starts_with(&GZIP_MAGIC) {
        return read_encoded(BufReader::with_capacity(BUFFER_BYTES, MultiGzDecoder::new(input)), file);
    }
    let is_text = Encoding::of(start).is_some()
        || start.iter().find(|byte| !byte.is_ascii_whitespace()).is_none_or(|byte| b"{[".contains(byte));
    if file.ends_with(".gz") && !is_text {
        return Err(ImportError::NotGzip { file: file.to_owned() });
    }
    read_encoded(input, file)
}

const BUFFER_BYTES: usize = 1 << 16;

/// The first bytes of a gzip stream (RFC 1952).
const GZIP_MAGIC: [u8; 2] = [0x1f, 0x8b];

/// The first bytes of formats that are recognised only to be refused by name.
const OTHER_FORMATS: [(&[u8], &str); 4] = [
    (&[0xfd, b'7', b'z', b'X', b'Z', 0], "xz"),
    (&[0x28, 0xb5, 0x2f, 0xfd], "zstd"),
    (b"BZh", "bzip2"),
    (b"PK\x03\x04", "zip"),
];

/// Reads text that may begin with a byte order mark.
fn read_encoded(mut input: impl BufRead, file: &str) -> Result<Topology, ImportError> {
    let start = input.fill_buf().map_err(|source| ImportError::Read { file: file.to_owned(), source })?;
    let encoding = Encoding::of(start);
    input.consume(encoding.map_or(0, Encoding::mark_bytes));
    match encoding {
        None | Some(Encoding::Utf8) => read_text(input, file),
        Some(Encoding::Utf16(order)) => {
            read_text(BufReader::with_capacity(BUFFER_BYTES, Utf16Reader::new(input, order)), file)
        }
    }
}

fn read_text(input: impl Read, file: &str) -> Result<Topology, ImportError> {
    let mut reading = Reading::default();
    let mut parser = serde_json::Deserializer::from_reader(input);
    let parsed = GraphSeed(&mut reading).deserialize(&mut parser).and_then(|()| parser.end());
    if let Err(error) = parsed {
        return Err(reading.explain(error, file));
    }
    if reading.channels.is_empty() {
        return Err(ImportError::Empty { file: file.to_owned() });
    }
    let topology = Topology::new(reading.labels, reading.channels);
    topology.map_err(|source| ImportError::Model { file: file.to_owned(), source })
}

#[cfg(test)]
mod tests;
