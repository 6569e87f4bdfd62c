//! The log on standard error.
//!
//! A line per call is most of what a busy server says, and a system call for each is a good part of what a call costs the
//! door (docs/BENCHMARKS.md). So these lines gather for a moment and are written together. Every other line is written at
//! once, behind those that wait before it: the order stays.

use parking_lot::{Condvar, Mutex};
use std::io::{self, Write};
use std::sync::Arc;
use std::time::Duration;
use tracing::Metadata;
use tracing_subscriber::fmt::MakeWriter;

/// The target of the line per call.
const GATHERED: &str = "access";
/// So long such a line waits for others, at most.
const WAIT_MAX: Duration = Duration::from_millis(50);
/// So many bytes are written without waiting longer.
const WAITING_BYTES_MAX: usize = 32 << 10;

struct Lines<W> {
    waiting: Vec<u8>,
    to: W,
    /// The thread waits for a first line: it must be told of one.
    idle: bool,
    ended: bool,
}

impl<W: Write> Lines<W> {
    /// Writes what waits, and `line` behind it.
    fn write_out(&mut self, line: &[u8]) -> io::Result<()> {
        let waiting = std::mem::take(&mut self.waiting);
        // One call for both, so that no other process that writes to the same place comes in between.
        let written = if line.is_empty() || waiting.is_empty() {
            self.to.write_all(if line.is_empty() { &waiting } else { line })
        } else {
            self.to.write_all(&[&waiting, line].concat())
        };
        self.waiting = waiting;
        self.waiting.clear();
        written
    }
}

struct Shared<W> {
    lines: Mutex<Lines<W>>,
    /// A line waits while the thread is idle, or the log ends.
    moved: Condvar,
}

/// Where the log's lines go.
pub struct LogWriter<W>(Arc<Shared<W>>);

/// Writes what still waits when it is dropped.
pub struct LogEnd<W: Write>(Arc<Shared<W>>);

impl<W: Write> Drop for LogEnd<W> {
    fn drop(&mut self) {
        let mut lines = self.0.lines.lock();
        lines.ended = true;
        // There is nobody to tell that the log cannot be written.
        let _ = lines.write_out(&[]);
        self.0.moved.notify_all();
    }
}

/// A log that goes to `to`.
///
/// # Errors
/// When its thread cannot be started.
pub fn log_to<W: Write + Send + 'static>(to: W) -> io::Result<(LogWriter<W>, LogEnd<W>)> {
    let lines = Mutex::new(Lines { waiting: Vec::new(), to, idle: false, ended: false });
    let shared = Arc::new(Shared { lines, moved: Condvar::new() });
    let gathered = Arc::clone(&shared);
    std::thread::Builder::new().name("log".to_owned()).spawn(move || write_gathered(&gathered))?;
    Ok((LogWriter(Arc::clone(&shared)), LogEnd(shared)))
}

fn write_gathered<W: Write>(shared: &Shared<W>) {
    let mut lines = shared.lines.lock();
    while !lines.ended {
        if lines.waiting.is_empty() {
            lines.idle = true;
            shared.moved.wait(&mut lines);
            lines.idle = false;
            continue;
        }
        shared.moved.wait_for(&mut lines, WAIT_MAX);
        let _ = lines.write_out(&[]);
    }
}

/// Takes the lines of one event.
pub struct LineWriter<'a, W> {
    shared: &'a Shared<W>,
    gathers: bool,
}

impl<W: Write> Write for LineWriter<'_, W> {
    fn write(&mut self, line: &[u8]) -> io::Result<usize> {
        let mut lines = self.shared.lines.lock();
        if !self.gathers || lines.ended {
            lines.write_out(line)?;
            return Ok(line.len());
        }
        lines.waiting.extend_from_slice(line);
        if lines.waiting.len() >= WAITING_BYTES_MAX {
            lines.write_out(&[])?;
        } else if std::mem::take(&mut lines.idle) {
            self.shared.moved.notify_one();
        }
        Ok(line.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

impl<'a, W: Write + 'static> MakeWriter<'a> for LogWriter<W> {
    type Writer = LineWriter<'a, W>;

    fn make_writer(&'a self) -> Self::Writer {
        LineWriter { shared: &self.0, gathers: false }
    }

    fn make_writer_for(&'a self, meta: &Metadata<'_>) -> Self::Writer {
        LineWriter { shared: &self.0, gathers: meta.target() == GATHERED }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::time::Instant;

    /// What was written, one entry per call.
    #[derive(Clone, Default)]
    struct Sink(Arc<Mutex<Vec<String>>>);

    impl Write for Sink {
        fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
            self.0.lock().push(String::from_utf8(bytes.to_vec()).unwrap());
            Ok(bytes.len())
        }

        fn flush(&mut self) -> io::Result<()> {
            Ok(())
        }
    }

    fn say(log: &LogWriter<Sink>, gathers: bool, line: &str) {
        LineWriter { shared: &log.0, gathers }.write_all(line.as_bytes()).unwrap();
    }

    fn eventually(sink: &Sink, wanted: &[&str]) {
        let deadline = Instant::now() + Duration::from_secs(10);
        while *sink.0.lock() != wanted {
            assert!(Instant::now() < deadline, "{:?}", sink.0.lock());
            std::thread::yield_now();
        }
    }

    #[test]
    fn lines_of_calls_are_written_together_before_long() {
        let sink = Sink::default();
        let (log, _end) = log_to(sink.clone()).unwrap();
        say(&log, true, "one\n");
        eventually(&sink, &["one\n"]);
    }

    #[test]
    fn another_line_is_written_at_once_and_behind_those_that_wait() {
        let sink = Sink::default();
        let (log, _end) = log_to(sink.clone()).unwrap();
        log.0.lines.lock().waiting.extend_from_slice(b"call\n");
        say(&log, false, "warning\n");
        assert_eq!(*sink.0.lock(), ["call\nwarning\n"]);
        say(&log, false, "another\n");
        assert_eq!(sink.0.lock().last().map(String::as_str), Some("another\n"));
    }

    #[test]
    fn many_lines_are_written_though_the_moment_is_not_over() {
        let sink = Sink::default();
        let (log, _end) = log_to(sink.clone()).unwrap();
        log.0.lines.lock().waiting = vec![b'x'; WAITING_BYTES_MAX - 1];
        say(&log, true, "y");
        assert_eq!(sink.0.lock().concat().len(), WAITING_BYTES_MAX);
    }

    #[test]
    fn what_waits_at_the_end_is_written_and_what_comes_later_too() {
        let sink = Sink::default();
        let (log, end) = log_to(sink.clone()).unwrap();
        say(&log, true, "last\n");
        drop(end);
        assert_eq!(sink.0.lock().concat(), "last\n");
        say(&log, true, "later\n");
        assert_eq!(sink.0.lock().concat(), "last\nlater\n");
    }
}
