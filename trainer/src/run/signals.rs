//! Ctrl-C and SIGTERM. The first signal ends the command soon (training after the current step), the
//! second kills the process.

use std::process::ExitCode;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};

use signal_hook::consts::{SIGINT, SIGTERM};

#[cfg(unix)]
use super::report::print_message;

/// Prints a message when the first signal arrives. The handlers of [`StopSignal::listen`] only set
/// flags, which the command looks at when it has finished something.
///
/// # Errors
///
/// If the system refuses.
#[cfg(unix)]
pub fn announce(message: &'static str) -> std::io::Result<()> {
    let mut signals = signal_hook::iterator::Signals::new([SIGINT, SIGTERM])?;
    let wait = move || {
        if signals.forever().next().is_some() {
            print_message!("\n{message}");
        }
    };
    std::thread::Builder::new().name("signals".into()).spawn(wait).map(|_| ())
}

/// Does nothing: other systems have no such signals.
///
/// # Errors
///
/// Never.
#[cfg(not(unix))]
pub fn announce(_message: &'static str) -> std::io::Result<()> {
    Ok(())
}

/// The first signal that was received, or 0.
#[derive(Clone, Default)]
pub struct StopSignal(Arc<AtomicUsize>);

impl StopSignal {
    /// Installs the signal handlers.
    ///
    /// # Errors
    ///
    /// If the system refuses.
    pub fn listen() -> std::io::Result<Self> {
        let stop = Self::default();
        let received = Arc::new(AtomicBool::new(false));
        for signal in [SIGINT, SIGTERM] {
            // The order matters: the second signal finds the flag that the first one set.
            let code = 128 + signal;
            signal_hook::flag::register_conditional_shutdown(signal, code, received.clone())?;
            signal_hook::flag::register(signal, received.clone())?;
            signal_hook::flag::register_usize(signal, stop.0.clone(), signal as usize)?;
        }
        Ok(stop)
    }

    /// Returns the exit code for the received signal, if there was one.
    pub fn exit_code(&self) -> Option<ExitCode> {
        match self.0.load(Ordering::Relaxed) {
            0 => None,
            signal => Some(ExitCode::from(128 + signal as u8)),
        }
    }
}
