//! What was seen of the calls that change files, as data: by the tracer of the end-to-end tests, or by the layer of the
//! simulated world.

use std::path::Path;

/// One change to the files of the traced directory. Paths are relative to it, `""` is the directory itself.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Change {
    /// A file was opened with leave to create it: it may have been there before.
    Create {
        /// Where.
        path: String,
        /// Its inode; the number may be used again once the file is gone.
        inode: u64,
        /// Whether it was emptied.
        truncates: bool,
    },
    /// Bytes were written.
    Write {
        /// Into which file.
        inode: u64,
        /// From which byte on.
        offset: u64,
        /// What.
        bytes: Vec<u8>,
    },
    /// A file was cut or lengthened.
    Truncate {
        /// Which file.
        inode: u64,
        /// Its new length.
        len: u64,
    },
    /// A file or directory was synced, and the sync has ended.
    Sync {
        /// Where it is.
        path: String,
        /// Its inode.
        inode: u64,
    },
    /// A file or directory was renamed, over what was there.
    Rename {
        /// From where.
        from: String,
        /// To where.
        to: String,
    },
    /// A file got one more name.
    Link {
        /// The name it has.
        from: String,
        /// The new one.
        to: String,
    },
    /// A file lost a name.
    Unlink {
        /// Where it was.
        path: String,
    },
    /// A directory was made.
    MakeDir {
        /// Where.
        path: String,
    },
    /// A directory was removed.
    RemoveDir {
        /// Where it was.
        path: String,
    },
    /// A file was opened only to be read. If it is known under another name, it was renamed past who was watching.
    Opened {
        /// Where.
        path: String,
        /// Its inode.
        inode: u64,
    },
    /// What was to go wrong went wrong here.
    Struck,
}

/// A change, and where in the trace it ends: what a client learned before the trace was so long came before it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Event {
    /// What happened.
    pub change: Change,
    /// Bytes of the trace up to and with it.
    pub end: u64,
}

struct Reader<'a> {
    rest: &'a [u8],
}

impl<'a> Reader<'a> {
    fn take(&mut self, len: usize) -> &'a [u8] {
        let (taken, rest) = self.rest.split_at(len);
        self.rest = rest;
        taken
    }

    fn u32(&mut self) -> u32 {
        u32::from_ne_bytes(self.take(4).try_into().expect("four bytes"))
    }

    fn u64(&mut self) -> u64 {
        u64::from_ne_bytes(self.take(8).try_into().expect("eight bytes"))
    }

    fn text(&mut self, len: u32) -> String {
        String::from_utf8(self.take(len as usize).to_vec()).expect("paths here are UTF-8")
    }
}

/// Reads the trace of what happened below `root`, the path that the tracer was given.
///
/// # Panics
/// A call was made that the model knows nothing of: then it has to learn it.
pub fn read(trace: &Path, root: &Path) -> Vec<Event> {
    let root = root.canonicalize().expect("the root is there");
    parse(&std::fs::read(trace).expect("the trace is there"), &root)
}

/// The same of a trace, or a part of one that begins and ends between two events.
///
/// # Panics
/// A call was made that the model knows nothing of.
pub fn parse(bytes: &[u8], root: &Path) -> Vec<Event> {
    let root = root.to_str().expect("paths here are UTF-8");
    let relative = |path: String| {
        let below = path.strip_prefix(root).map(|it| it.trim_start_matches('/').to_owned());
        below.unwrap_or_else(|| panic!("{path} is not below {root}"))
    };
    let mut reader = Reader { rest: bytes };
    let mut events = Vec::new();
    while !reader.rest.is_empty() {
        let [kind, path_len, path2_len, truncates] = std::array::from_fn(|_| reader.u32());
        let [inode, offset, len] = std::array::from_fn(|_| reader.u64());
        let (path, path2) = (reader.text(path_len), reader.text(path2_len));
        let change = match kind {
            1 => Change::Create { path: relative(path), inode, truncates: truncates != 0 },
            2 => Change::Write { inode, offset, bytes: reader.take(len as usize).to_vec() },
            3 => Change::Truncate { inode, len: offset },
            4 => Change::Sync { path: relative(path), inode },
            5 => Change::Rename { from: relative(path), to: relative(path2) },
            6 => Change::Unlink { path: relative(path) },
            7 => Change::MakeDir { path: relative(path) },
            8 => Change::RemoveDir { path: relative(path) },
            9 => Change::Link { from: relative(path), to: relative(path2) },
            10 => Change::Opened { path: relative(path), inode },
            11 => Change::Struck,
            _ => panic!("a call on {path} {path2} that the model of the disk does not know"),
        };
        events.push(Event { change, end: (bytes.len() - reader.rest.len()) as u64 });
    }
    events
}
