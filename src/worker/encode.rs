//! Baseline JPEG out of strips that are encoded apart, so that a still strip is encoded once and for all.
//!
//! A strip is one row of MCUs and one restart interval: its Huffman data starts from fresh DC predictors (ITU T.81, E.1.4),
//! so the scans of all strips, joined by RST markers under one header, are the scan of the whole picture.

use jpeg_encoder::{ColorType, Encoder, EncodingError, SamplingFactor};

/// Rows in a strip: one MCU row with 4:2:0 subsampling.
pub(super) const STRIP_ROWS: usize = 16;

const MARKER: u8 = 0xff;
const SOI_EOI_BYTES: usize = 2;
const SOF0: u8 = 0xc0;
const SOS: u8 = 0xda;
const RST0: u8 = 0xd0;
const EOI: u8 = 0xd9;
const COMMENT: u8 = 0xfe;
/// What a comment segment can hold: its 16-bit length counts itself.
const COMMENT_BYTES_MAX: usize = 65_533;
/// Marker and length of a comment segment.
const COMMENT_HEAD_BYTES: usize = 4;

/// Encodes one strip of `width` by [`STRIP_ROWS`] RGB pixels into a JPEG of its own.
///
/// # Errors
/// When the encoder refuses the dimensions.
pub(super) fn strip(pixels: &[u8], width: u16, quality: u8) -> Result<StripJpeg, EncodingError> {
    let mut bytes = Vec::with_capacity(pixels.len() / 4);
    let mut encoder = Encoder::new(&mut bytes, quality);
    encoder.set_sampling_factor(SamplingFactor::R_4_2_0);
    encoder.set_restart_interval(width.div_ceil(STRIP_ROWS as u16));
    encoder.encode(pixels, width, STRIP_ROWS as u16, ColorType::Rgb)?;
    let scan = scan_start(&bytes).unwrap_or(bytes.len());
    Ok(StripJpeg { bytes, scan })
}

/// One encoded strip.
pub(super) struct StripJpeg {
    bytes: Vec<u8>,
    scan: usize,
}

impl StripJpeg {
    /// The entropy-coded data alone.
    pub(super) fn scan(&self) -> &[u8] {
        let end = self.bytes.len().saturating_sub(SOI_EOI_BYTES).max(self.scan);
        &self.bytes[self.scan..end]
    }

    /// Everything before it, with the height of the whole picture written in.
    pub(super) fn header(&self, height: u16) -> Vec<u8> {
        let mut header = self.bytes[..self.scan].to_vec();
        if let Some(frame) = segment(&header, SOF0) {
            // marker 2, length 2, precision 1, then the height
            header[frame + 5..frame + 7].copy_from_slice(&height.to_be_bytes());
        }
        header
    }
}

/// Joins a header and its strips' scans; comment segments fill it up to `bytes_min` where there is room for one.
pub(super) fn join<'a>(header: &[u8], scans: impl Iterator<Item = &'a [u8]> + Clone, bytes_min: usize) -> Vec<u8> {
    let natural = header.len() + scans.clone().map(|scan| scan.len() + 2).sum::<usize>();
    let mut jpeg = Vec::with_capacity(natural.max(bytes_min));
    jpeg.extend_from_slice(&header[..SOI_EOI_BYTES]);
    fill(&mut jpeg, bytes_min.saturating_sub(natural));
    jpeg.extend_from_slice(&header[SOI_EOI_BYTES..]);
    let mut restart = None;
    for scan in scans {
        if let Some(number) = restart {
            jpeg.extend_from_slice(&[MARKER, RST0 + number]);
        }
        restart = Some(restart.map_or(0, |number| (number + 1) % 8));
        jpeg.extend_from_slice(scan);
    }
    jpeg.extend_from_slice(&[MARKER, EOI]);
    jpeg
}

fn fill(jpeg: &mut Vec<u8>, mut missing: usize) {
    while missing >= COMMENT_HEAD_BYTES {
        let room = (missing - COMMENT_HEAD_BYTES).min(COMMENT_BYTES_MAX);
        jpeg.extend_from_slice(&[MARKER, COMMENT]);
        jpeg.extend_from_slice(&(room as u16 + 2).to_be_bytes());
        jpeg.resize(jpeg.len() + room, b' ');
        missing -= COMMENT_HEAD_BYTES + room;
    }
}

/// Where the entropy-coded data starts.
fn scan_start(jpeg: &[u8]) -> Option<usize> {
    let start = segment(jpeg, SOS)?;
    Some(start + 2 + length(jpeg, start)?)
}

/// Where the first segment with this marker starts.
fn segment(jpeg: &[u8], wanted: u8) -> Option<usize> {
    let mut at = SOI_EOI_BYTES;
    while *jpeg.get(at)? == MARKER {
        if *jpeg.get(at + 1)? == wanted {
            return Some(at);
        }
        at += 2 + length(jpeg, at)?;
    }
    None
}

fn length(jpeg: &[u8], segment: usize) -> Option<usize> {
    let bytes = jpeg.get(segment + 2..segment + 4)?;
    Some(usize::from(u16::from_be_bytes([bytes[0], bytes[1]])))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn flat(color: [u8; 3], width: u16) -> StripJpeg {
        let pixels = color.repeat(usize::from(width) * STRIP_ROWS);
        strip(&pixels, width, 80).unwrap()
    }

    fn decode(jpeg: &[u8]) -> (u16, u16, Vec<u8>) {
        let mut decoder = jpeg_decoder::Decoder::new(jpeg);
        let pixels = decoder.decode().unwrap();
        let info = decoder.info().unwrap();
        (info.width, info.height, pixels)
    }

    #[test]
    fn joined_strips_decode_as_one_picture_in_their_order() {
        let colors = [[250, 10, 10], [10, 250, 10], [10, 10, 250]];
        let strips: Vec<_> = (0..12).map(|index| flat(colors[index % 3], 48)).collect();
        let jpeg = join(&strips[0].header(12 * 16), strips.iter().map(StripJpeg::scan), 0);
        let (width, height, pixels) = decode(&jpeg);
        assert_eq!((width, height), (48, 12 * 16));
        for index in 0..12 {
            let middle = ((index * STRIP_ROWS + 8) * 48 + 24) * 3;
            for channel in 0..3 {
                let off = i32::from(pixels[middle + channel]) - i32::from(colors[index % 3][channel]);
                assert!(off.abs() < 12, "strip {index}, channel {channel}: off by {off}");
            }
        }
    }

    #[test]
    fn filling_reaches_the_wanted_size_and_still_decodes() {
        let strips: Vec<_> = (0..4).map(|_| flat([90, 90, 90], 32)).collect();
        for wanted in [5_000, 65_540, 200_003] {
            let jpeg = join(&strips[0].header(64), strips.iter().map(StripJpeg::scan), wanted);
            assert!(jpeg.len().abs_diff(wanted) < COMMENT_HEAD_BYTES, "{} for {wanted}", jpeg.len());
            assert_eq!(decode(&jpeg).1, 64);
        }
    }
}
