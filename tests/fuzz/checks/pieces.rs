//! The ways in which the network may cut a stream.
//!
//! Owns: how an input chooses them.
//! May depend on: nothing.
//! Invariants: the pieces of each way, put together, are the stream.

/// Splits an input into cuts and the stream that they are for. The first byte's last three bits say how many bytes
/// follow that are a piece's length each: an input that begins with `0` is a stream with no cut of its own.
pub(crate) fn split(bytes: &[u8]) -> (&[u8], &[u8]) {
    let Some((first, rest)) = bytes.split_first() else {
        return (&[], &[]);
    };
    rest.split_at(usize::from(first & 7).min(rest.len()))
}

/// The stream whole, cut where the input says, and byte for byte.
pub(crate) fn ways<'a>(cuts: &[u8], stream: &'a [u8]) -> [Vec<&'a [u8]>; 3] {
    let (mut chosen, mut rest) = (Vec::new(), stream);
    for cut in cuts {
        let (piece, after) = rest.split_at(usize::from(*cut).min(rest.len()));
        chosen.push(piece);
        rest = after;
    }
    chosen.push(rest);
    [vec![stream], chosen, stream.chunks(1).collect()]
}
