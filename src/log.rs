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
        if !lines.waiting.is_empty() {
            // There is nobody to tell that the log cannot be written.
            let _ = lines.write_out(&[]);
        }
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
    use std::sync::mpsc::{Receiver, Sender, channel};

    const DEADLINE: Duration = Duration::from_secs(10);

    /// Tells what is written, call by call.
    struct Sink(Sender<String>);

    impl Write for Sink {
        fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
            self.0.send(String::from_utf8_lossy(bytes).into_owned()).unwrap();
            Ok(bytes.len())
        }

        fn flush(&mut self) -> io::Result<()> {
            Ok(())
        }
    }

    fn log() -> (LogWriter<Sink>, LogEnd<Sink>, Receiver<String>) {
        let (told, written) = channel();
        let (log, end) = log_to(Sink(told)).unwrap();
        (log, end, written)
    }

    fn say(log: &LogWriter<Sink>, gathers: bool, line: &str) {
        LineWriter { shared: &log.0, gathers }.write_all(line.as_bytes()).unwrap();
    }

    /// What was written by now: in how many calls is up to the thread.
    fn so_far(written: &Receiver<String>) -> String {
        written.try_iter().collect()
    }

    #[test]
    fn the_line_of_a_call_is_written_before_long_and_the_next_one_too() {
        let (log, _end, written) = log();
        for line in ["one\n", "two\n"] {
            say(&log, true, line);
            assert_eq!(written.recv_timeout(DEADLINE).as_deref(), Ok(line));
        }
    }

    #[test]
    fn another_line_is_written_at_once_and_behind_those_that_wait() {
        let (log, _end, written) = log();
        log.0.lines.lock().waiting.extend_from_slice(b"call\n");
        say(&log, false, "warning\n");
        assert_eq!(so_far(&written), "call\nwarning\n");
        say(&log, false, "another\n");
        assert_eq!(so_far(&written), "another\n");
    }

    #[test]
    fn many_lines_are_written_though_the_moment_is_not_over() {
        let (log, _end, written) = log();
        log.0.lines.lock().waiting = vec![b'x'; WAITING_BYTES_MAX];
        say(&log, true, "y\n");
        assert!(so_far(&written).len() >= WAITING_BYTES_MAX);
    }

    #[test]
    fn what_waits_at_the_end_is_written_and_what_comes_later_too() {
        let (log, end, written) = log();
        log.0.lines.lock().waiting.extend_from_slice(b"last\n");
        drop(end);
        assert_eq!(so_far(&written), "last\n");
        say(&log, true, "later\n");
        assert_eq!(so_far(&written), "later\n");
    }
}
