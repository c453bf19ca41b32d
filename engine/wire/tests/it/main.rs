//! Tests of fulmen-wire from outside: the vectors of BOLT 1 and 7, and TLV streams of a namespace of their own.

mod namespaces;
mod vectors;
