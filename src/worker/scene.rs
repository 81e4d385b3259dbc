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

/// What the wallpaper is made of.
pub(super) struct Backdrop {
    /// The picture's size.
    pub size: Size,
    /// JPEG quality.
    pub quality: u8,
    /// The colour that shades into black.
    pub tint: Color,
    /// Shapes that stand still.
    pub fixed: Vec<Shape>,
}

/// The part of every picture that stands still.
pub(super) struct Scene {
    backdrop: Backdrop,
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
    pub(super) fn new(backdrop: Backdrop, jpeg_bytes: usize) -> Result<Self, EncodingError> {
        let grain = backdrop.grain_for(jpeg_bytes)?;
        let strips = backdrop.still(grain, 0..backdrop.strip_count())?;
        let (pixels, strips): (Vec<_>, Vec<_>) = strips.into_iter().unzip();
        let header = strips.first().map(|strip| strip.header(backdrop.size.height)).unwrap_or_default();
        Ok(Self { backdrop, jpeg_bytes_min: jpeg_bytes, pixels: pixels.concat(), strips, header })
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
            let bytes = STRIP_ROWS * usize::from(self.backdrop.size.width) * 3;
            let mut pixels = self.pixels[index * bytes..(index + 1) * bytes].to_vec();
            let mut strip = Strip { pixels: &mut pixels, width: i32::from(self.backdrop.size.width), top };
            here.for_each(|shape| strip.draw(shape));
            changed.insert(index, encode::strip(&pixels, self.backdrop.size.width, self.backdrop.quality)?);
        }
        let strips = self.strips.iter().enumerate();
        let scans = strips.map(|(index, still)| changed.get(&index).unwrap_or(still).scan());
        Ok(encode::join(&self.header, scans, self.jpeg_bytes_min))
    }
}

impl Backdrop {
    fn strip_count(&self) -> usize {
        usize::from(self.size.height) / STRIP_ROWS
    }

    /// The most grain with which the picture stays a little below `jpeg_bytes`: what moves may cost some, too.
    fn grain_for(&self, jpeg_bytes: usize) -> Result<i32, EncodingError> {
        let sample: Vec<_> = (0..self.strip_count()).step_by(SAMPLE_EVERY).collect();
        let (mut low, mut high) = (0, GRAIN_MAX);
        while high - low > 2 {
            let grain = (low + high) / 2;
            let strips = self.still(grain, sample.iter().copied())?;
            let bytes: usize = strips.iter().map(|(_, jpeg)| jpeg.scan().len()).sum();
            let estimate = bytes * self.strip_count() / sample.len().max(1);
            if estimate < jpeg_bytes - jpeg_bytes / 16 {
                low = grain;
            } else {
                high = grain;
            }
        }
        Ok(low)
    }

    fn still(
        &self,
        grain: i32,
        strips: impl Iterator<Item = usize>,
    ) -> Result<Vec<(Vec<u8>, StripJpeg)>, EncodingError> {
        let draw = |index: usize| {
            let mut pixels = vec![0; STRIP_ROWS * usize::from(self.size.width) * 3];
            let mut strip =
                Strip { pixels: &mut pixels, width: i32::from(self.size.width), top: (index * STRIP_ROWS) as i32 };
            picture::wallpaper(&mut strip, i32::from(self.size.height), self.tint, grain);
            self.fixed.iter().for_each(|shape| strip.draw(shape));
            let jpeg = encode::strip(&pixels, self.size.width, self.quality)?;
            Ok((pixels, jpeg))
        };
        strips.map(draw).collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_picture_has_the_wanted_size_and_decodes_with_its_shapes() {
        let size = Size { width: 160, height: 320 };
        let fixed = vec![Shape::Rect { x: 0, y: 0, width: 160, height: 40, color: [0, 0, 0] }];
        let backdrop = Backdrop { size, quality: 80, tint: [40, 90, 200], fixed };
        let scene = Scene::new(backdrop, 20_000).unwrap();
        let disc = Shape::Disc { x: 80, y: 160, radius: 40, color: [250, 250, 250] };
        let jpeg = scene.with(&[disc]).unwrap();
        assert!((19_990..21_500).contains(&jpeg.len()), "{}", jpeg.len());
        let pixels = jpeg_decoder::Decoder::new(&jpeg[..]).decode().unwrap();
        let at = |x: usize, y: usize| pixels[(y * 160 + x) * 3];
        assert!(at(80, 160) > 230, "the disc is there");
        assert!(at(80, 20) < 30, "and what stands still is at the top");
    }
}
