//! The two TLV namespaces of BOLT 1 appendix B, read and written through the public stream functions as an onion
//! payload would be.

use std::collections::BTreeMap;

use fulmen_wire::codec::{DecodeError, Reader, Writer};
use fulmen_wire::tlv::{StreamWriter, UnknownTlvs, read_stream};
use fulmen_wire::units::{Point, Scid};

/// A stream of either namespace.
#[derive(Debug, Default, PartialEq)]
pub(crate) struct Stream {
    amount_msat: Option<u64>,
    scid: Option<Scid>,
    tlv3: Option<(Point, u64, u64)>,
    cltv_delta: Option<u16>,
    cltv_expiry: Option<u32>,
    unknown: UnknownTlvs,
}

/// Reads a stream of namespace `n1`.
pub(crate) fn read_n1(bytes: &[u8]) -> Result<Stream, DecodeError> {
    let mut stream = Stream::default();
    stream.unknown = read_stream(&mut Reader::new(bytes), |tlv_type, value| {
        match tlv_type {
            1 => stream.amount_msat = Some(value.tu64()?),
            2 => stream.scid = Some(Scid(value.u64()?)),
            3 => stream.tlv3 = Some((value.point()?, value.u64()?, value.u64()?)),
            254 => stream.cltv_delta = Some(value.u16()?),
            _ => return Ok(false),
        }
        Ok(true)
    })?;
    Ok(stream)
}

/// Reads a stream of namespace `n2`.
pub(crate) fn read_n2(bytes: &[u8]) -> Result<Stream, DecodeError> {
    let mut stream = Stream::default();
    stream.unknown = read_stream(&mut Reader::new(bytes), |tlv_type, value| {
        match tlv_type {
            0 => stream.amount_msat = Some(value.tu64()?),
            11 => stream.cltv_expiry = Some(value.tu32()?),
            _ => return Ok(false),
        }
        Ok(true)
    })?;
    Ok(stream)
}

impl Stream {
    /// Writes the stream in the namespace it is of.
    pub(crate) fn write(&self, namespace: &str) -> Vec<u8> {
        let mut bytes = Vec::new();
        let mut writer = Writer::new(&mut bytes);
        let mut stream = StreamWriter::new(&mut writer, &self.unknown);
        if namespace == "n1" {
            stream.optional(1, self.amount_msat.as_ref(), |value, writer| writer.tu64(*value));
            stream.optional(2, self.scid.as_ref(), |value, writer| writer.u64(value.0));
            stream.optional(3, self.tlv3.as_ref(), |(point, first, second), writer| {
                writer.bytes(&point.0);
                writer.u64(*first);
                writer.u64(*second);
            });
            stream.optional(254, self.cltv_delta.as_ref(), |value, writer| writer.u16(*value));
        } else {
            stream.optional(0, self.amount_msat.as_ref(), |value, writer| writer.tu64(*value));
            stream.optional(11, self.cltv_expiry.as_ref(), |value, writer| writer.tu32(*value));
        }
        stream.finish();
        bytes
    }

    /// The values by their names in BOLT 1.
    pub(crate) fn values(&self) -> BTreeMap<&'static str, String> {
        let mut values = BTreeMap::new();
        let mut put = |name, value: Option<String>| value.map(|value| values.insert(name, value));
        put("amount_msat", self.amount_msat.map(|value| value.to_string()));
        put("scid", self.scid.map(|value| value.to_string()));
        put("node_id", self.tlv3.map(|value| value.0.to_string()));
        put("amount_msat_1", self.tlv3.map(|value| value.1.to_string()));
        put("amount_msat_2", self.tlv3.map(|value| value.2.to_string()));
        put("cltv_delta", self.cltv_delta.map(|value| value.to_string()));
        put("cltv_expiry", self.cltv_expiry.map(|value| value.to_string()));
        values
    }
}
