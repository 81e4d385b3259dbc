//! The simulated phones: what their screens show, and the frames that all viewers of one share.
//!
//! A frame is drawn when a viewer wants one, at most once per device and tick; a device without viewers costs nothing.

use std::{
    collections::{HashMap, VecDeque},
    sync::{Arc, Mutex, OnceLock},
    time::{Duration, Instant},
};

use base64::{Engine, engine::general_purpose::STANDARD};
use bytes::Bytes;
use jiff::Timestamp;
use serde_json::{Value, json};
use sha2::{Digest, Sha256};
use tokio::sync::OnceCell;
use tokio_tungstenite::tungstenite::Utf8Bytes;

use super::{
    journal::hex,
    lock,
    options::Options,
    picture::{self, Shape},
    scene::{Backdrop, Scene},
    screen::{Now, Screen},
    sockets::padded,
};

/// Phones that one worker simulates; asking for more is refused.
pub(super) const DEVICES_MAX: usize = 4_096;
/// Taps whose ripples are still drawn.
const RIPPLES_MAX: usize = 8;
/// How long a ripple spreads.
const RIPPLE: Duration = Duration::from_millis(1_200);
/// Two viewers that ask within one of these get the same frame: 60 frames a second is the most there is.
const TICK: Duration = Duration::from_micros(1_000_000 / 60);
/// Room for the fields around the picture in a frame's JSON.
const ENVELOPE_BYTES: usize = 200;

/// All phones of a worker.
pub(super) struct Devices {
    screen: Screen,
    quality: u8,
    frame_bytes: usize,
    started: Instant,
    scene: OnceCell<Option<Arc<Scene>>>,
    devices: Mutex<HashMap<String, Arc<Device>>>,
}

impl Devices {
    /// No phones yet; the wallpaper is drawn when the first frame is wanted.
    pub(super) fn new(worker: &str, options: &Options) -> Self {
        let hue = options
            .hue
            .unwrap_or_else(|| worker.bytes().fold(7, |hue: u32, byte| hue.wrapping_mul(67).wrapping_add(byte.into())));
        Self {
            screen: Screen { worker: worker.into(), tint: picture::color_of_hue(hue), size: options.size },
            quality: options.quality,
            frame_bytes: options.frame_bytes as usize,
            started: Instant::now(),
            scene: OnceCell::new(),
            devices: Mutex::default(),
        }
    }

    /// The phone of this session, made if it is new; `None` when there are [`DEVICES_MAX`] already.
    pub(super) fn of(&self, session: &str) -> Option<Arc<Device>> {
        let mut devices = lock(&self.devices);
        if let Some(device) = devices.get(session) {
            return Some(device.clone());
        }
        if devices.len() >= DEVICES_MAX {
            return None;
        }
        let device = Arc::new(Device { session: session.into(), state: Mutex::default() });
        devices.insert(session.into(), device.clone());
        Some(device)
    }

    /// The sessions that have been asked for, with what their phones have seen.
    pub(super) fn list(&self) -> Vec<Value> {
        let mut devices: Vec<_> =
            lock(&self.devices).values().map(|device| device.describe(&self.screen.worker)).collect();
        devices.sort_by(|a, b| a["session_id"].as_str().cmp(&b["session_id"].as_str()));
        devices
    }

    /// How far the next frame is away for a viewer at `fps`; viewers with the same rate wake together and share frames.
    pub(super) fn until_next(&self, fps: f64) -> Duration {
        let now = self.started.elapsed().as_secs_f64();
        let next = ((now * fps).floor() + 1.0) / fps;
        Duration::from_secs_f64((next - now).max(0.0))
    }

    /// Draws the wallpaper before the first frame is wanted.
    pub(super) async fn warm(&self) {
        self.scene.get_or_init(|| self.draw_scene()).await;
    }

    /// The phone's picture now, drawn unless another viewer had it drawn in the same tick.
    /// `None` when the picture's size suits no encoder.
    pub(super) async fn frame(&self, device: &Device) -> Option<Arc<Frame>> {
        let scene = self.scene.get_or_init(|| self.draw_scene()).await.as_ref()?;
        let tick = (self.started.elapsed().as_nanos() / TICK.as_nanos()) as u64;
        let mut state = lock(&device.state);
        if let Some((drawn, frame)) = &state.last
            && *drawn == tick
        {
            return Some(frame.clone());
        }
        state.seq += 1;
        let shapes = state.shapes(&self.screen, &device.session, self.started.elapsed().as_secs_f64());
        let jpeg = scene.with(&shapes).inspect_err(|error| tracing::error!(%error, "no picture")).ok()?;
        let frame = Arc::new(self.envelope(&device.session, state.seq, jpeg));
        state.last = Some((tick, frame.clone()));
        Some(frame)
    }

    async fn draw_scene(&self) -> Option<Arc<Scene>> {
        let backdrop = Backdrop {
            size: self.screen.size,
            quality: self.quality,
            tint: self.screen.tint,
            fixed: self.screen.fixed(),
        };
        let jpeg_bytes = self.frame_bytes.saturating_sub(ENVELOPE_BYTES) / 4 * 3;
        let drawing = tokio::task::spawn_blocking(move || Scene::new(backdrop, jpeg_bytes));
        match drawing.await.map_err(|error| error.to_string()) {
            Ok(Ok(scene)) => Some(Arc::new(scene)),
            Ok(Err(error)) => {
                tracing::error!(%error, "no wallpaper");
                None
            }
            Err(error) => {
                tracing::error!(%error, "no wallpaper");
                None
            }
        }
    }

    fn envelope(&self, session: &str, seq: u64, jpeg: Vec<u8>) -> Frame {
        let head = json!({
            "type": "frame", "session": session, "worker": self.screen.worker, "seq": seq,
            "ts": Timestamp::now().as_millisecond(), "format": "jpeg",
            "width": self.screen.size.width, "height": self.screen.size.height,
        });
        let mut text = head.to_string();
        text.reserve_exact(jpeg.len() / 3 * 4 + 16);
        text.pop();
        text.push_str(",\"data\":\"");
        STANDARD.encode_string(&jpeg, &mut text);
        text.push_str("\"}");
        Frame { message: text.into(), with_sha: OnceLock::new(), jpeg: jpeg.into() }
    }
}

/// One picture, ready to be sent to any number of viewers.
pub(super) struct Frame {
    /// The picture alone.
    pub jpeg: Bytes,
    message: Utf8Bytes,
    with_sha: OnceLock<Utf8Bytes>,
}

impl Frame {
    /// The JSON message; `sha` adds the picture's SHA-256, `bytes_min` a field that makes it at least so long.
    pub(super) fn message(&self, sha: bool, bytes_min: usize) -> Utf8Bytes {
        let message = if sha { self.with_sha.get_or_init(|| self.signed()) } else { &self.message };
        if bytes_min > message.len() { padded(message, "padding", bytes_min).into() } else { message.clone() }
    }

    fn signed(&self) -> Utf8Bytes {
        let open = self.message.strip_suffix('}').unwrap_or(&self.message);
        format!("{open},\"sha\":\"{}\"}}", hex(&Sha256::digest(&self.jpeg))).into()
    }
}

/// One simulated phone.
pub(super) struct Device {
    session: String,
    state: Mutex<State>,
}

impl Device {
    /// Does what a control command says: a tap leaves a ripple, anything else only its name.
    pub(super) fn execute(&self, command: &Value) {
        let mut state = lock(&self.state);
        state.commands += 1;
        let kind = command["t"].as_str().unwrap_or("?");
        state.last_command = match command["n"].as_u64() {
            Some(number) => format!("{kind} {number}"),
            None => kind.into(),
        };
        if let (Some(x), Some(y)) = (command["x"].as_f64(), command["y"].as_f64()) {
            state.taps.push_back((x as i32, y as i32, Instant::now()));
            let surplus = state.taps.len().saturating_sub(RIPPLES_MAX);
            state.taps.drain(..surplus);
        }
    }

    /// The phone as the REST interface shows it.
    pub(super) fn describe(&self, worker: &str) -> Value {
        let state = lock(&self.state);
        json!({
            "session_id": self.session, "device": "Simulated Phone", "status": "booted",
            "worker": worker, "frames": state.seq, "commands": state.commands,
        })
    }
}

#[derive(Default)]
struct State {
    seq: u64,
    commands: u64,
    last_command: String,
    taps: VecDeque<(i32, i32, Instant)>,
    last: Option<(u64, Arc<Frame>)>,
}

impl State {
    fn shapes(&mut self, screen: &Screen, session: &str, seconds: f64) -> Vec<Shape> {
        self.taps.retain(|(_, _, at)| at.elapsed() < RIPPLE);
        let spread = |at: &Instant| at.elapsed().as_secs_f64() / RIPPLE.as_secs_f64();
        screen.moving(&Now {
            session,
            seq: self.seq,
            commands: self.commands,
            last_command: &self.last_command,
            seconds,
            ripples: self.taps.iter().map(|(x, y, at)| (*x, *y, spread(at))).collect(),
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn viewers_of_one_tick_share_a_frame_of_the_wanted_size() {
        let devices = Devices::new("w-1", &Options::default());
        let device = devices.of("s1").unwrap();
        device.execute(&json!({"t": "tap", "x": 100, "y": 200, "n": 17}));
        let frame = devices.frame(&device).await.unwrap();
        let again = devices.frame(&device).await.unwrap();
        assert!(Arc::ptr_eq(&frame, &again) || frame.message(false, 0) != again.message(false, 0));
        assert!((224_000..230_000).contains(&frame.message.len()), "{}", frame.message.len());
        let json: Value = serde_json::from_str(&frame.message(true, 300_000)).unwrap();
        assert_eq!(json["sha"], hex(&Sha256::digest(&frame.jpeg)));
        assert_eq!((&json["worker"], &json["session"], &json["seq"]), (&json!("w-1"), &json!("s1"), &json!(1)));
        let jpeg = STANDARD.decode(json["data"].as_str().unwrap()).unwrap();
        assert_eq!(jpeg, frame.jpeg);
        let mut decoder = jpeg_decoder::Decoder::new(&jpeg[..]);
        decoder.decode().unwrap();
        assert_eq!(decoder.info().map(|info| (info.width, info.height)), Some((528, 1136)));
    }

    #[test]
    fn phones_are_bounded() {
        let devices = Devices::new("w-1", &Options::default());
        for index in 0..DEVICES_MAX {
            assert!(devices.of(&index.to_string()).is_some());
        }
        assert!(devices.of("one more").is_none());
        assert!(devices.of("7").is_some(), "known ones stay");
    }
}
