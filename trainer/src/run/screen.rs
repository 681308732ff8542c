//! A terminal in memory, for tests of what progress displays show.

use std::io;
use std::sync::{Arc, Mutex, MutexGuard};

use indicatif::{ProgressDrawTarget, TermLike};

/// A terminal in memory. Its clones are the same terminal.
#[derive(Clone, Debug)]
pub struct Screen(Arc<Mutex<Cells>>);

/// The characters of a terminal, and the place of the next one.
#[derive(Debug)]
struct Cells {
    width: usize,
    rows: Vec<Vec<char>>,
    row: usize,
    column: usize,
}

impl Screen {
    /// Makes an empty terminal with this number of columns.
    pub fn new(width: u16) -> Self {
        let cells = Cells { width: width.into(), rows: Vec::new(), row: 0, column: 0 };
        Self(Arc::new(Mutex::new(cells)))
    }

    /// Returns the target of a progress bar that is drawn on this terminal.
    pub fn target(&self) -> ProgressDrawTarget {
        ProgressDrawTarget::term_like(Box::new(self.clone()))
    }

    /// Returns all characters that are not blank, row by row.
    pub fn text(&self) -> String {
        let cells = self.cells();
        cells.rows.iter().flatten().filter(|c| !c.is_whitespace()).collect()
    }

    fn cells(&self) -> MutexGuard<'_, Cells> {
        self.0.lock().expect("nothing panics while it is locked")
    }
}

impl Cells {
    fn write(&mut self, text: &str) {
        for c in text.chars() {
            match c {
                '\n' => (self.row, self.column) = (self.row + 1, 0),
                '\r' => self.column = 0,
                c => {
                    // Only the next character goes to the next row, as on other terminals.
                    if self.column == self.width {
                        (self.row, self.column) = (self.row + 1, 0);
                    }
                    let column = self.column;
                    self.current()[column] = c;
                    self.column += 1;
                }
            }
        }
    }

    /// Returns the row of the next character.
    fn current(&mut self) -> &mut Vec<char> {
        let count = self.rows.len().max(self.row + 1);
        self.rows.resize(count, vec![' '; self.width]);
        &mut self.rows[self.row]
    }
}

impl TermLike for Screen {
    fn width(&self) -> u16 {
        u16::try_from(self.cells().width).expect("it was one")
    }

    fn move_cursor_up(&self, n: usize) -> io::Result<()> {
        let mut cells = self.cells();
        cells.row = cells.row.saturating_sub(n);
        Ok(())
    }

    fn move_cursor_down(&self, n: usize) -> io::Result<()> {
        self.cells().row += n;
        Ok(())
    }

    fn move_cursor_right(&self, n: usize) -> io::Result<()> {
        self.cells().column += n;
        Ok(())
    }

    fn move_cursor_left(&self, n: usize) -> io::Result<()> {
        let mut cells = self.cells();
        cells.column = cells.column.saturating_sub(n);
        Ok(())
    }

    fn write_line(&self, text: &str) -> io::Result<()> {
        let mut cells = self.cells();
        cells.write(text);
        cells.write("\n");
        Ok(())
    }

    fn write_str(&self, text: &str) -> io::Result<()> {
        self.cells().write(text);
        Ok(())
    }

    fn clear_line(&self) -> io::Result<()> {
        let mut cells = self.cells();
        cells.current().fill(' ');
        cells.column = 0;
        Ok(())
    }

    fn flush(&self) -> io::Result<()> {
        Ok(())
    }
}
