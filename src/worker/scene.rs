//! The wallpaper of a worker's screens, encoded once, and pictures made by drawing over it.
//!
//! The film grain is chosen so that a picture comes close to the wanted size by itself; comment segments make up the rest.

use std::collections::BTreeMap;

use jpeg_encoder::EncodingError;

use super::{
    encode::{self, STRIP_ROWS, StripJpeg},
    options::Size,
    picture::{self, Color, Shape, Strip},
};

/// Grain of up to this much per channel; with more, text would drown.
const GRAIN_MAX: i32 = 110;
/// Strips encoded while the grain is sought: every so many-th one.
const SAMPLE_EVERY: usize = 6;

/// The part of every picture that stands still.
pub(super) struct Scene {
    size: Size,
    quality: u8,
    jpeg_bytes_min: usize,
    pixels: Vec<u8>,
    strips: Vec<StripJpeg>,
    header: Vec<u8>,
}

impl Scene {
    /// Draws and encodes the wallpaper; tens of milliseconds, so not on an async thread.
    ///
    /// # Errors
    /// When the encoder refuses the dimensions.
    pub(super) fn new(size: Size, quality: u8, tint: Color, jpeg_bytes: usize) -> Result<Self, EncodingError> {
        let mut low = 0;
        let mut high = GRAIN_MAX;
        while high - low > 2 {
            let grain = (low + high) / 2;
            let sample = (0..strip_count(size)).step_by(SAMPLE_EVERY);
            let bytes =
                still(size, quality, tint, grain, sample.clone())?.iter().map(|s| s.1.scan().len()).sum::<usize>();
            let estimate = bytes * strip_count(size) / sample.count().max(1);
            if estimate < jpeg_bytes - jpeg_bytes / 16 { low = grain } else { high = grain }
        }
        let (pixels, strips): (Vec<_>, Vec<_>) =
            still(size, quality, tint, low, 0..strip_count(size))?.into_iter().unzip();
        let header = strips.first().map(|strip| strip.header(size.height)).unwrap_or_default();
        Ok(Self { size, quality, jpeg_bytes_min: jpeg_bytes, pixels: pixels.concat(), strips, header })
    }

    /// The wallpaper with `shapes` drawn over it, in their order.
    ///
    /// # Errors
    /// When the encoder fails; it does not for dimensions that [`Scene::new`] took.
    pub(super) fn with(&self, shapes: &[Shape]) -> Result<Vec<u8>, EncodingError> {
        let mut changed = BTreeMap::new();
        for index in 0..self.strips.len() {
            let top = (index * STRIP_ROWS) as i32;
            let touches = |shape: &&Shape| shape.rows().1 > top && shape.rows().0 < top + STRIP_ROWS as i32;
            let mut here = shapes.iter().filter(touches).peekable();
            if here.peek().is_none() {
                continue;
            }
            let bytes = STRIP_ROWS * usize::from(self.size.width) * 3;
            let mut pixels = self.pixels[index * bytes..(index + 1) * bytes].to_vec();
            let mut strip = Strip { pixels: &mut pixels, width: i32::from(self.size.width), top };
            here.for_each(|shape| strip.draw(shape));
            changed.insert(index, encode::strip(&pixels, self.size.width, self.quality)?);
        }
        let strips = self.strips.iter().enumerate();
        let scans = strips.map(|(index, still)| changed.get(&index).unwrap_or(still).scan());
        Ok(encode::join(&self.header, scans, self.jpeg_bytes_min))
    }
}

fn strip_count(size: Size) -> usize {
    usize::from(size.height) / STRIP_ROWS
}

fn still(
    size: Size,
    quality: u8,
    tint: Color,
    grain: i32,
    strips: impl Iterator<Item = usize>,
) -> Result<Vec<(Vec<u8>, StripJpeg)>, EncodingError> {
    let draw = |index: usize| {
        let mut pixels = vec![0; STRIP_ROWS * usize::from(size.width) * 3];
        let mut strip = Strip { pixels: &mut pixels, width: i32::from(size.width), top: (index * STRIP_ROWS) as i32 };
        picture::wallpaper(&mut strip, i32::from(size.height), tint, grain);
        let jpeg = encode::strip(&pixels, size.width, quality)?;
        Ok((pixels, jpeg))
    };
    strips.map(draw).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_picture_has_the_wanted_size_and_decodes_with_its_shapes() {
        let size = Size { width: 160, height: 320 };
        let scene = Scene::new(size, 80, [40, 90, 200], 20_000).unwrap();
        let disc = Shape::Disc { x: 80, y: 160, radius: 40, color: [250, 250, 250] };
        let jpeg = scene.with(&[disc]).unwrap();
        assert!((19_990..21_500).contains(&jpeg.len()), "{}", jpeg.len());
        let pixels = jpeg_decoder::Decoder::new(&jpeg[..]).decode().unwrap();
        let at = |x: usize, y: usize| pixels[(y * 160 + x) * 3];
        assert!(at(80, 160) > 230, "the disc is there");
        assert!(at(80, 20) < 200, "and nothing of it at the top");
    }
}
