//! Pages that were read last.

use std::collections::VecDeque;
use std::sync::{Arc, Mutex, OnceLock, PoisonError};

/// Values that were made last, of a limited size together, for several threads.
pub struct Cache<T> {
    /// Maximum size in bytes.
    limit: u64,
    recent: Mutex<Recent<T>>,
}

struct Recent<T> {
    /// The values by their numbers, the last used at the end.
    entries: VecDeque<Entry<T>>,
    /// Sum of the sizes in bytes.
    size: u64,
}

struct Entry<T> {
    number: usize,
    size: u64,
    value: Slot<T>,
}

/// Where one thread puts a value for which others wait.
type Slot<T> = Arc<OnceLock<Result<Arc<T>, String>>>;

impl<T> Cache<T> {
    /// Makes an empty cache of at most `limit` bytes, or of one value if that is larger.
    pub fn new(limit: u64) -> Self {
        Self { limit, recent: Mutex::new(Recent { entries: VecDeque::new(), size: 0 }) }
    }

    /// Returns value `number`, which takes `size` bytes. It is made if it is not there; another thread that
    /// needs it in the meantime waits.
    ///
    /// # Errors
    ///
    /// That of `make`.
    pub fn get(
        &self,
        number: usize,
        size: u64,
        make: impl FnOnce() -> Result<T, String>,
    ) -> Result<Arc<T>, String> {
        let slot = self.slot(number, size);
        let value = slot.get_or_init(|| make().map(Arc::new)).clone();
        if value.is_err() {
            // The file may be readable later.
            self.remove(number, &slot);
        }
        value
    }

    fn slot(&self, number: usize, size: u64) -> Slot<T> {
        let mut recent = self.recent.lock().unwrap_or_else(PoisonError::into_inner);
        let known = recent.entries.iter().position(|entry| entry.number == number);
        if let Some(entry) = known.and_then(|at| recent.entries.remove(at)) {
            let value = entry.value.clone();
            recent.entries.push_back(entry);
            return value;
        }
        while recent.size + size > self.limit
            && let Some(oldest) = recent.entries.pop_front()
        {
            recent.size -= oldest.size;
        }
        let value = Slot::default();
        recent.size += size;
        recent.entries.push_back(Entry { number, size, value: value.clone() });
        value
    }

    fn remove(&self, number: usize, slot: &Slot<T>) {
        let mut recent = self.recent.lock().unwrap_or_else(PoisonError::into_inner);
        let same = |entry: &Entry<T>| entry.number == number && Arc::ptr_eq(&entry.value, slot);
        let known = recent.entries.iter().position(same);
        if let Some(entry) = known.and_then(|at| recent.entries.remove(at)) {
            recent.size -= entry.size;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::sync::atomic::{AtomicUsize, Ordering};

    #[test]
    fn the_last_used_values_are_kept() {
        let cache = Cache::new(10);
        let made = AtomicUsize::new(0);
        let get = |number: usize, size| {
            let make = || {
                made.fetch_add(1, Ordering::Relaxed);
                Ok(number)
            };
            assert_eq!(cache.get(number, size, make).map(|value| *value), Ok(number));
            made.load(Ordering::Relaxed)
        };
        assert_eq!([get(1, 5), get(2, 5), get(1, 5)], [1, 2, 2]);
        // 2 is dropped, which was used before 1.
        assert_eq!([get(3, 4), get(1, 5), get(2, 5)], [3, 3, 4]);
        // A larger one stands alone, and stays.
        assert_eq!([get(4, 50), get(4, 50), get(2, 5)], [5, 5, 6]);
    }

    #[test]
    fn a_value_is_made_once_for_all_threads_and_errors_are_not_kept() {
        let cache = Cache::new(10);
        let made = AtomicUsize::new(0);
        std::thread::scope(|scope| {
            for _ in 0..8 {
                scope.spawn(|| {
                    let make = || {
                        std::thread::sleep(std::time::Duration::from_millis(20));
                        Ok(made.fetch_add(1, Ordering::Relaxed))
                    };
                    assert_eq!(cache.get(7, 1, make).map(|value| *value), Ok(0));
                });
            }
        });
        assert_eq!(cache.get(8, 1, || Err("no".into())), Err("no".into()));
        assert_eq!(cache.get(8, 1, || Ok(3)).map(|value| *value), Ok(3));
    }
}
