//! Ctrl-C, SIGTERM and the end of the terminal (SIGHUP). The first signal ends the command soon (training
//! after the current step). A second Ctrl-C or SIGTERM kills the process.

use std::process::ExitCode;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};

#[cfg(unix)]
use signal_hook::consts::SIGHUP;
use signal_hook::consts::{SIGINT, SIGTERM};

#[cfg(unix)]
use super::report::print_message;

/// Returns whether SIGHUP is to be handled: it is not if it was ignored when the process started, as under
/// `nohup`. Only Linux tells without unsafe code; other systems keep what they do with the signal.
#[cfg(unix)]
fn handles_hangup() -> bool {
    let status = std::fs::read_to_string("/proc/self/status").unwrap_or_default();
    let ignored = status.lines().find_map(|line| line.strip_prefix("SigIgn:"));
    let ignored = ignored.and_then(|mask| u64::from_str_radix(mask.trim(), 16).ok());
    // The lowest bit is signal 1.
    ignored.is_some_and(|mask| mask & (1u64 << (SIGHUP - 1)) == 0)
}

/// Prints a message when the first signal arrives. The handlers of [`StopSignal::listen`] only set
/// flags, which the command looks at when it has finished something.
///
/// # Errors
///
/// If the system refuses.
#[cfg(unix)]
pub fn announce(message: &'static str) -> std::io::Result<()> {
    let mut handled = vec![SIGINT, SIGTERM];
    if handles_hangup() {
        handled.push(SIGHUP);
    }
    let mut signals = signal_hook::iterator::Signals::new(handled)?;
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

/// The signal that was received, the latest of several, or 0.
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
        // No shutdown: where a terminal is closed, both its shell and the system send the signal.
        #[cfg(unix)]
        if handles_hangup() {
            signal_hook::flag::register(SIGHUP, received.clone())?;
            signal_hook::flag::register_usize(SIGHUP, stop.0.clone(), SIGHUP as usize)?;
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
