//! The pixels of a browser's screenshot: PNG, eight bits per channel, not interlaced, which is all that it writes.

use miniz_oxide::inflate::decompress_to_vec_zlib;

/// Red, green, blue.
pub(crate) type Colour = [u8; 3];

pub(crate) struct Picture {
    pub(crate) width: usize,
    pub(crate) height: usize,
    pixels: Vec<Colour>,
}

impl Picture {
    pub(crate) fn decode(png: &[u8]) -> Self {
        let mut rest = png.strip_prefix(b"\x89PNG\r\n\x1a\n").expect("a PNG");
        let (mut header, mut packed) = (&[][..], Vec::new());
        while let [a, b, c, d, after @ ..] = rest {
            let length = u32::from_be_bytes([*a, *b, *c, *d]) as usize;
            let (kind, after) = after.split_at(4);
            let (body, after) = after.split_at(length);
            match kind {
                b"IHDR" => header = body,
                b"IDAT" => packed.extend_from_slice(body),
                _ => {}
            }
            rest = &after[4..]; // The checksum.
        }
        let number = |at: usize| {
            let bytes = header[at..at + 4].try_into().expect("four bytes");
            u32::from_be_bytes(bytes) as usize
        };
        let (width, height) = (number(0), number(4));
        let channels = match header[8..13] {
            [8, 2, 0, 0, 0] => 3,
            [8, 6, 0, 0, 0] => 4,
            ref other => panic!("a kind of PNG that is not read here: {other:?}"),
        };
        let packed = decompress_to_vec_zlib(&packed).expect("the pixels are compressed");
        Self {
            width,
            height,
            pixels: unfilter(&packed, width, channels),
        }
    }

    pub(crate) fn at(&self, x: usize, y: usize) -> Colour {
        self.pixels[y * self.width + x]
    }
}

/// Undoes the filters of <https://www.w3.org/TR/png-3/#9Filters>.
fn unfilter(packed: &[u8], width: usize, channels: usize) -> Vec<Colour> {
    let row_bytes = width * channels;
    let mut above = vec![0; row_bytes];
    let mut pixels = Vec::new();
    for filtered in packed.chunks_exact(row_bytes + 1) {
        let mut row = filtered[1..].to_vec();
        for at in 0..row_bytes {
            let up = above[at];
            let (left, up_left) = match at.checked_sub(channels) {
                Some(before) => (row[before], above[before]),
                None => (0, 0),
            };
            let predicted = match filtered[0] {
                0 => 0,
                1 => left,
                2 => up,
                3 => u8::midpoint(left, up),
                4 => paeth(left, up, up_left),
                other => panic!("filter {other}"),
            };
            row[at] = row[at].wrapping_add(predicted);
        }
        let colours = row.chunks_exact(channels);
        pixels.extend(colours.map(|bytes| [bytes[0], bytes[1], bytes[2]]));
        above = row;
    }
    pixels
}

fn paeth(left: u8, up: u8, up_left: u8) -> u8 {
    let estimate = i16::from(left) + i16::from(up) - i16::from(up_left);
    let distance = |of: u8| (estimate - i16::from(of)).abs();
    // The first of the nearest, in this order.
    [left, up, up_left]
        .into_iter()
        .min_by_key(|of| distance(*of))
        .expect("three")
}
