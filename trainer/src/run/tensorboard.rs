//! Event files for TensorBoard (`tensorboard --logdir runs`).
//!
//! A file is a sequence of records: length (u64, little endian), its masked CRC-32C, a protocol
//! buffer `tensorflow.Event`, and the masked CRC-32C of that. Steps are numbers of images seen.

use std::fs::{File, OpenOptions};
use std::path::Path;
use std::time::{SystemTime, UNIX_EPOCH};

use anyhow::Context;
use prost::Message;

use crate::files::atomic::append;

/// The used fields of `tensorflow.Event`.
#[derive(Clone, PartialEq, Message)]
struct Event {
    #[prost(double, tag = "1")]
    wall_time: f64,
    #[prost(int64, tag = "2")]
    step: i64,
    #[prost(string, optional, tag = "3")]
    file_version: Option<String>,
    #[prost(message, optional, tag = "5")]
    summary: Option<Summary>,
    #[prost(message, optional, tag = "7")]
    session_log: Option<SessionLog>,
}

#[derive(Clone, PartialEq, Message)]
struct Summary {
    #[prost(message, repeated, tag = "1")]
    value: Vec<Value>,
}

#[derive(Clone, PartialEq, Message)]
struct Value {
    #[prost(string, tag = "1")]
    tag: String,
    #[prost(float, optional, tag = "2")]
    simple_value: Option<f32>,
    #[prost(message, optional, tag = "4")]
    image: Option<Image>,
}

#[derive(Clone, PartialEq, Message)]
struct Image {
    #[prost(int32, tag = "1")]
    height: i32,
    #[prost(int32, tag = "2")]
    width: i32,
    /// 3 is RGB.
    #[prost(int32, tag = "3")]
    colorspace: i32,
    /// A PNG file.
    #[prost(bytes = "vec", tag = "4")]
    encoded_image_string: Vec<u8>,
}

#[derive(Clone, PartialEq, Message)]
struct SessionLog {
    /// 1 is START: TensorBoard discards earlier events of this step and later ones.
    #[prost(int32, tag = "1")]
    status: i32,
}

/// The event file of one process.
pub struct Events(File);

impl Events {
    /// Creates the event file of a process that starts or resumes after `images` images.
    ///
    /// # Errors
    ///
    /// If the file cannot be written.
    pub fn create(folder: &Path, images: u64) -> anyhow::Result<Self> {
        let name = format!("events.out.tfevents.{}.{}", now() as u64, std::process::id());
        let path = folder.join(name);
        let file = OpenOptions::new().create(true).append(true).open(&path);
        let mut events = Self(file.with_context(|| format!("cannot write {}", path.display()))?);
        let version = Some("brain.Event:2".to_string());
        events.write(Event { wall_time: now(), file_version: version, ..Event::default() })?;
        let session_log = Some(SessionLog { status: 1 });
        events.write(Event { session_log, ..Self::event(images) })?;
        Ok(events)
    }

    /// Writes scalars after `images` images.
    ///
    /// # Errors
    ///
    /// If the file cannot be written.
    pub fn scalars(&mut self, images: u64, scalars: &[(&str, f64)]) -> anyhow::Result<()> {
        let value = scalars.iter().map(|&(tag, value)| Value {
            tag: tag.into(),
            simple_value: Some(value as f32),
            image: None,
        });
        let summary = Some(Summary { value: value.collect() });
        self.write(Event { summary, ..Self::event(images) })
    }

    /// Writes an image after `images` images: a PNG file and its size.
    ///
    /// # Errors
    ///
    /// If the file cannot be written.
    pub fn image(
        &mut self,
        images: u64,
        tag: &str,
        [width, height]: [usize; 2],
        png: Vec<u8>,
    ) -> anyhow::Result<()> {
        let image = Image {
            height: height as i32,
            width: width as i32,
            colorspace: 3,
            encoded_image_string: png,
        };
        let value = vec![Value { tag: tag.into(), simple_value: None, image: Some(image) }];
        self.write(Event { summary: Some(Summary { value }), ..Self::event(images) })
    }

    fn event(images: u64) -> Event {
        Event { wall_time: now(), step: images as i64, ..Event::default() }
    }

    fn write(&mut self, event: Event) -> anyhow::Result<()> {
        append(&mut self.0, &record(&event.encode_to_vec())).context("cannot write the event file")
    }
}

/// Returns the record of a serialised event.
fn record(event: &[u8]) -> Vec<u8> {
    let length = (event.len() as u64).to_le_bytes();
    [&length[..], &masked_crc(&length), event, &masked_crc(event)].concat()
}

/// Returns the masked CRC-32C of TensorFlow's record files: rotated, plus a constant.
fn masked_crc(bytes: &[u8]) -> [u8; 4] {
    crc32c::crc32c(bytes).rotate_right(15).wrapping_add(0xA282_EAD8).to_le_bytes()
}

/// Returns the Unix time in seconds.
fn now() -> f64 {
    SystemTime::now().duration_since(UNIX_EPOCH).map_or(0.0, |time| time.as_secs_f64())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::files::hash::hex;

    /// Compared with what the Python package `tensorboard` 2.21 writes for the same events.
    #[test]
    fn records_match_tensorboard() {
        let value = |tag: &str| Value { tag: tag.into(), simple_value: None, image: None };
        let image =
            Image { height: 2, width: 3, colorspace: 3, encoded_image_string: b"png".into() };
        let values = vec![
            Value { simple_value: Some(0.25), ..value("loss") },
            Value { image: Some(image), ..value("grid") },
        ];
        let summary = Some(Summary { value: values });
        let event = Event { wall_time: 1.5, step: 32_000, summary, ..Event::default() };
        assert_eq!(
            hex(&record(&event.encode_to_vec())),
            "31000000000000009d8383e909000000000000f83f1080fa012a220a0b0a046c6f7373150000803e0a130a0467\
             726964220b0802100318032203706e67d974a97f"
        );
        let session_log = Some(SessionLog { status: 1 });
        let event = Event { wall_time: 2.0, step: 64, session_log, ..Event::default() };
        assert_eq!(
            hex(&record(&event.encode_to_vec())),
            "0f000000000000006d532b0909000000000000004010403a0208018fa39283"
        );
    }
}
