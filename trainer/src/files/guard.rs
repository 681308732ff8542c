//! Panics of other crates on damaged files.

use std::cell::Cell;
use std::panic::{AssertUnwindSafe, catch_unwind, set_hook, take_hook};
use std::sync::Once;

thread_local! {
    static QUIET: Cell<bool> = const { Cell::new(false) };
}

/// Calls a function of a crate that may panic where it should return an error, and returns `None` if it
/// does. Nothing is printed then. What the function works on must not be used afterwards.
pub fn caught<T>(call: impl FnOnce() -> T) -> Option<T> {
    static HOOK: Once = Once::new();
    HOOK.call_once(|| {
        let report = take_hook();
        set_hook(Box::new(move |info| {
            if !QUIET.get() {
                report(info);
            }
        }));
    });
    let before = QUIET.replace(true);
    let result = catch_unwind(AssertUnwindSafe(call));
    QUIET.set(before);
    result.ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn panics_are_caught() {
        assert_eq!(caught(|| 3), Some(3));
        let inside = caught(|| {
            assert!(QUIET.get());
            assert_eq!(caught(|| std::hint::black_box(&[1][..])[std::hint::black_box(2)]), None);
            assert!(QUIET.get());
        });
        assert_eq!(inside, Some(()));
        assert!(!QUIET.get());
    }
}
