//! How a simulated phone's screen is laid out: banner, status bar, ball, ripples and the line at the bottom.

use jiff::Timestamp;

use super::{
    options::Size,
    picture::{Color, Shape, WHITE},
};

const BLACK: Color = [12, 12, 16];
/// Letters of the worker's name, the session's id and the bottom line that fit.
const NAME_LETTERS: usize = 18;
const SESSION_LETTERS: usize = 12;
const LINE_LETTERS: usize = 21;

/// The layout of one worker's screens.
pub(super) struct Screen {
    /// The worker's name.
    pub worker: String,
    /// The worker's colour.
    pub tint: Color,
    /// The picture's size.
    pub size: Size,
}

/// What one phone shows now.
pub(super) struct Now<'a> {
    /// The session's id.
    pub session: &'a str,
    /// Pictures drawn.
    pub seq: u64,
    /// Commands executed.
    pub commands: u64,
    /// The last one in a word or two.
    pub last_command: &'a str,
    /// Seconds that move the ball.
    pub seconds: f64,
    /// Taps: where, and how far their ripple has spread, from 0 to 1.
    pub ripples: Vec<(i32, i32, f64)>,
}

impl Screen {
    /// What never changes: the worker's name in its colour.
    pub(super) fn fixed(&self) -> Vec<Shape> {
        let scale = self.scale();
        let top = self.bar() * 2;
        let width = i32::from(self.size.width) - scale * 8;
        let banner = rect(scale * 4, top, width, scale * 16, self.tint);
        vec![banner, label(scale * 8, top + scale * 5, scale, &self.worker, NAME_LETTERS)]
    }

    /// What is drawn over it, from back to front.
    pub(super) fn moving(&self, now: &Now<'_>) -> Vec<Shape> {
        let mut shapes = self.ball(now.seconds);
        shapes.extend(now.ripples.iter().map(|ripple| self.ripple(*ripple)));
        shapes.extend(self.status_bar(now.session));
        shapes.extend(self.bottom_line(now));
        shapes
    }

    fn scale(&self) -> i32 {
        (i32::from(self.size.width) / 130).max(1)
    }

    fn bar(&self) -> i32 {
        self.scale() * 10
    }

    fn status_bar(&self, session: &str) -> [Shape; 3] {
        let (scale, width) = (self.scale(), i32::from(self.size.width));
        let second = Timestamp::now().as_second().rem_euclid(86_400);
        let clock = format!("{:02}:{:02}:{:02}", second / 3_600, second / 60 % 60, second % 60);
        let letters = session.chars().count().min(SESSION_LETTERS) as i32;
        let aside = width - (letters + 1) * 6 * scale;
        [
            rect(0, 0, width, self.bar(), BLACK),
            label(scale * 2, scale, scale, &clock, LINE_LETTERS),
            label(aside, scale, scale, session, SESSION_LETTERS),
        ]
    }

    fn bottom_line(&self, now: &Now<'_>) -> [Shape; 2] {
        let (scale, bar) = (self.scale(), self.bar());
        let top = i32::from(self.size.height) - bar;
        let text = format!("#{:06} TAPS {} {}", now.seq, now.commands, now.last_command);
        [
            rect(0, top, i32::from(self.size.width), bar, BLACK),
            label(scale * 2, top + scale, scale, &text, LINE_LETTERS),
        ]
    }

    fn ball(&self, seconds: f64) -> Vec<Shape> {
        let (width, height) = (i32::from(self.size.width), i32::from(self.size.height));
        let radius = width / 10;
        let swing = |phase: f64, low: i32, high: i32| low + ((phase.sin() + 1.0) / 2.0 * f64::from(high - low)) as i32;
        let x = swing(seconds * 1.7, radius, width - radius);
        let y = swing(seconds * 1.1, height / 5 + radius, height * 9 / 10 - radius);
        let disc = |radius, color| Shape::Disc { x, y, radius, color };
        vec![disc(radius, WHITE), disc(radius - self.scale() * 2, self.tint)]
    }

    fn ripple(&self, (x, y, spread): (i32, i32, f64)) -> Shape {
        let scale = self.scale();
        let radius = scale * 4 + (spread * f64::from(scale * 14)) as i32;
        Shape::Ring { x, y, radius, width: scale + 1, color: WHITE }
    }
}

fn rect(x: i32, y: i32, width: i32, height: i32, color: Color) -> Shape {
    Shape::Rect { x, y, width, height, color }
}

fn label(x: i32, y: i32, scale: i32, text: &str, letters: usize) -> Shape {
    Shape::Text { x, y, scale, color: WHITE, text: text.chars().take(letters).collect() }
}
