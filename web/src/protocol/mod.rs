//! The messages between the page and its workers: JSON, and bytes for some of them.
//!
//! The page numbers its requests, and every answer carries the number of its request, so that each
//! side can tell what a message is about.

#[cfg(target_arch = "wasm32")]
pub mod carry;
mod event;
mod ready;
mod request;

use serde::{Deserialize, Serialize};

pub use event::*;
pub use ready::*;
pub use request::*;

/// The version of the programs: a hash of their sources. Page and worker are built together; the
/// worker's first message contains its version, so that the page notices if a worker is of another one.
pub const VERSION: &str = env!("DIFFIT_VERSION");

/// A request with its number. The numbers of a page increase.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Message {
    /// The number. For [`Request::Generate`], it is the number of the run, which requests for its
    /// attention carry. For [`Request::Cancel`], it is the number of the request to be cancelled.
    pub number: u64,
    /// The request.
    pub request: Request,
}

/// An event with the number of the request that it answers.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Report<E = Event> {
    /// The number of the request; `None` for what the worker says by itself, such as that its device
    /// is lost.
    pub answers: Option<u64>,
    /// The event.
    pub event: E,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn messages_keep_their_numbers() {
        let message = Message { number: 7, request: Request::Cancel };
        let text = serde_json::to_string(&message).expect("plain data");
        assert_eq!(serde_json::from_str::<Message>(&text).expect("as written"), message);
        // As `compute.js` writes it, which knows no numbers.
        let text = r#"{"event": {"Program": {"loaded": 3, "total": 4}}}"#;
        let report: Report = serde_json::from_str(text).expect("a report");
        let event = Event::Program { loaded: 3, total: 4 };
        assert_eq!(report, Report { answers: None, event });
        assert_eq!(VERSION.len(), 16);
    }
}
