//! What is drawn on the simulated screen: the still wallpaper, and the few shapes that move over it.
//!
//! Everything is drawn one strip of rows at a time, because only the strips that change are encoded again (see `encode`).

use super::font;

/// Red, green, blue.
pub(super) type Color = [u8; 3];

/// White, for text.
pub(super) const WHITE: Color = [255, 255, 255];

/// A shape over the wallpaper; coordinates are pixels and may lie outside of the picture.
#[derive(Debug, Clone)]
pub(super) enum Shape {
    /// A filled rectangle.
    Rect { x: i32, y: i32, width: i32, height: i32, color: Color },
    /// A filled circle.
    Disc { x: i32, y: i32, radius: i32, color: Color },
    /// A circle's outline, `width` pixels thick.
    Ring { x: i32, y: i32, radius: i32, width: i32, color: Color },
    /// Capital letters, each font pixel `scale` pixels wide and high.
    Text { x: i32, y: i32, scale: i32, color: Color, text: String },
}

impl Shape {
    /// The first row that the shape touches and the first one below it.
    pub(super) fn rows(&self) -> (i32, i32) {
        match *self {
            Self::Rect { y, height, .. } => (y, y + height),
            Self::Disc { y, radius, .. } | Self::Ring { y, radius, .. } => (y - radius, y + radius + 1),
            Self::Text { y, scale, .. } => (y, y + scale * font::GLYPH_ROWS as i32),
        }
    }
}

/// Rows `top..` of a picture, as RGB bytes.
pub(super) struct Strip<'a> {
    /// `width * 3` bytes for each row.
    pub pixels: &'a mut [u8],
    /// Pixels in a row.
    pub width: i32,
    /// The picture's row that this strip starts with.
    pub top: i32,
}

impl Strip<'_> {
    /// Draws the part of `shape` that lies in this strip.
    pub(super) fn draw(&mut self, shape: &Shape) {
        match *shape {
            Shape::Rect { x, y, width, height, color } => self.rect(x, y, width, height, color),
            Shape::Disc { x, y, radius, color } => self.ring(x, y, 0, radius, color),
            Shape::Ring { x, y, radius, width, color } => self.ring(x, y, radius - width, radius, color),
            Shape::Text { x, y, scale, color, ref text } => self.text(x, y, scale, color, text),
        }
    }

    fn rows(&self) -> i32 {
        self.pixels.len() as i32 / (self.width * 3)
    }

    fn rect(&mut self, x: i32, y: i32, width: i32, height: i32, color: Color) {
        let left = x.clamp(0, self.width);
        let right = (x + width).clamp(0, self.width);
        let first = (y - self.top).clamp(0, self.rows());
        let last = (y + height - self.top).clamp(0, self.rows());
        for row in first..last {
            let start = ((row * self.width + left) * 3) as usize;
            let end = ((row * self.width + right) * 3) as usize;
            for pixel in self.pixels[start..end].as_chunks_mut::<3>().0 {
                *pixel = color;
            }
        }
    }

    fn ring(&mut self, x: i32, y: i32, inner: i32, outer: i32, color: Color) {
        for row in 0..self.rows() {
            let dy = row + self.top - y;
            if dy.abs() > outer {
                continue;
            }
            let reach = half_chord(outer, dy);
            let hole = if dy.abs() < inner { half_chord(inner, dy) } else { 0 };
            let at = row + self.top;
            self.rect(x - reach, at, reach - hole, 1, color);
            self.rect(x + hole, at, reach - hole + 1, 1, color);
        }
    }

    fn text(&mut self, x: i32, y: i32, scale: i32, color: Color, text: &str) {
        for (index, letter) in text.chars().enumerate() {
            let left = x + index as i32 * scale * (font::GLYPH_COLUMNS as i32 + 1);
            for (column, bits) in font::glyph(letter).iter().enumerate() {
                for row in 0..font::GLYPH_ROWS as i32 {
                    if bits >> row & 1 == 1 {
                        self.rect(left + column as i32 * scale, y + row * scale, scale, scale, color);
                    }
                }
            }
        }
    }
}

fn half_chord(radius: i32, dy: i32) -> i32 {
    f64::from(radius * radius - dy * dy).max(0.0).sqrt() as i32
}

/// Fills the wallpaper's rows `top..`: two colours shading into each other, with film grain of up to `grain` per channel.
/// The grain is what gives the JPEG the size of a photograph.
pub(super) fn wallpaper(strip: &mut Strip<'_>, height: i32, tint: Color, grain: i32) {
    let (width, top) = (strip.width, strip.top);
    for (index, pixel) in strip.pixels.as_chunks_mut::<3>().0.iter_mut().enumerate() {
        let (x, y) = (index as i32 % width, index as i32 / width + top);
        let shade = (y * 160 / height.max(1) + x * 60 / width.max(1)).min(220);
        let noise = (i32::from(hash(x as u32, y as u32)) - 128) * grain / 128;
        for (channel, value) in pixel.iter_mut().enumerate() {
            let base = i32::from(tint[channel]) * (255 - shade) / 255 + 24;
            *value = (base + noise).clamp(0, 255) as u8;
        }
    }
}

/// A byte that looks random and depends on nothing but its place.
fn hash(x: u32, y: u32) -> u8 {
    let mixed = x.wrapping_mul(0x9e37_79b1) ^ y.wrapping_mul(0x85eb_ca77);
    let mixed = (mixed ^ mixed >> 15).wrapping_mul(0x2c1b_3c6d);
    (mixed >> 13) as u8
}

/// A saturated colour of this hue (degrees).
pub(super) fn color_of_hue(hue: u32) -> Color {
    let hue = hue % 360;
    let rising = (hue % 60 * 255 / 60) as u8;
    let falling = 255 - rising;
    let [red, green, blue] = match hue / 60 {
        0 => [255, rising, 0],
        1 => [falling, 255, 0],
        2 => [0, 255, rising],
        3 => [0, falling, 255],
        4 => [rising, 0, 255],
        _ => [255, 0, falling],
    };
    [red, green, blue].map(|channel| (u16::from(channel) * 3 / 4 + 48) as u8)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn drawn(shape: &Shape) -> Vec<u8> {
        let mut pixels = vec![0; 8 * 8 * 3];
        let mut strip = Strip { pixels: &mut pixels, width: 8, top: 16 };
        strip.draw(shape);
        pixels
    }

    #[test]
    fn a_shape_outside_of_the_strip_draws_nothing() {
        for y in [-100, 0, 15 - 2, 24 + 3, 1_000] {
            let disc = Shape::Disc { x: 4, y, radius: 2, color: WHITE };
            assert!(drawn(&disc).iter().all(|&byte| byte == 0), "y = {y}");
        }
    }

    #[test]
    fn a_shape_is_clipped_at_every_edge() {
        let rect = Shape::Rect { x: -5, y: 10, width: 100, height: 100, color: WHITE };
        assert!(drawn(&rect).iter().all(|&byte| byte == 255));
    }

    #[test]
    fn text_leaves_the_pixels_of_its_glyph() {
        let text = Shape::Text { x: 0, y: 16, scale: 1, color: WHITE, text: "L".into() };
        let pixels = drawn(&text);
        assert_eq!(pixels[0], 255, "the stem starts at the top left");
        assert_eq!(pixels[3], 0, "and is one pixel wide");
        assert_eq!(pixels[(6 * 8 + 4) * 3], 255, "the foot ends at the bottom right");
    }
}
