//! Why a store cannot be opened.

use std::path::PathBuf;
use thiserror::Error;

/// Why a store cannot be opened.
#[derive(Debug, Error)]
pub enum StoreError {
    /// Files of the data dir cannot be read or written.
    #[error("TS0310: {doing} {path}: {error}", path = path.display())]
    Io {
        /// What was tried.
        doing: &'static str,
        /// On what.
        path: PathBuf,
        /// Why not.
        error: std::io::Error,
    },
    /// The data dir was written by another version.
    #[error(
        "TS0311: {path} has format {found}, this version of tillstream reads format {expected}: \
         run the version that wrote it, or give another data dir",
        path = data_dir.display()
    )]
    Version {
        /// The data dir.
        data_dir: PathBuf,
        /// The format that it says.
        found: String,
        /// The format that this version reads.
        expected: u32,
    },
    /// The number of partitions cannot change.
    #[error(
        "TS0312: {path} was made with {found} partitions, not {asked}: start with {found}, \
         or give another data dir",
        path = data_dir.display()
    )]
    Partitions {
        /// The data dir.
        data_dir: PathBuf,
        /// What it was made with.
        found: u32,
        /// What was asked for.
        asked: u32,
    },
    /// Another process has the data dir open.
    #[error(
        "TS0313: {path} is in use by {owner}: stop it first, or give another data dir",
        path = data_dir.display()
    )]
    InUse {
        /// The data dir.
        data_dir: PathBuf,
        /// `process 123`, or `another process`.
        owner: String,
    },
    /// The data dir has a database, but the file that says what it is is missing or cannot be understood.
    #[error(
        "TS0314: {path} is not a data dir of tillstream: {detail}; restore it from a backup, or give another data dir",
        path = data_dir.display()
    )]
    NotAStore {
        /// The data dir.
        data_dir: PathBuf,
        /// What is wrong.
        detail: String,
    },
    /// The database inside cannot be opened or read.
    #[error("TS0315: the database in {path} cannot be opened: {detail}; restore it from a backup", path = data_dir.display())]
    Database {
        /// The data dir.
        data_dir: PathBuf,
        /// What the database says.
        detail: String,
    },
    /// The log ends before what was durable: acknowledged records are gone.
    #[error(
        "TS0317: {partition} was durable up to offset {durable}, but {path} holds it only up to {found}: the database's \
         journal is damaged and acknowledged records are gone; restore the data dir from a backup, or remove the file \
         {ends} in it to go on with what is left",
        path = data_dir.display(),
        ends = crate::high_water::ENDS
    )]
    Lost {
        /// The data dir.
        data_dir: PathBuf,
        /// Where records are gone; others may have lost some, too.
        partition: tillstream_log::TopicPartition,
        /// One past the last offset that was durable.
        durable: u64,
        /// One past the last offset that is there.
        found: u64,
    },
    /// The database ends before what a task had committed: rows are gone.
    #[error(
        "TS0317: {task} had durably committed {durable} records of its input, but {path} knows of {found} only: the \
         database is damaged and acknowledged changes are gone; restore the data dir from a backup, or remove the file \
         {ends} in it to go on with what is left",
        path = data_dir.display(),
        ends = crate::high_water::ENDS
    )]
    LostCommits {
        /// The data dir.
        data_dir: PathBuf,
        /// Which task.
        task: String,
        /// The offset that was durable.
        durable: u64,
        /// The offset that is there.
        found: u64,
    },
    /// The journal is damaged where it was synced.
    #[error(
        "TS0318: {detail}; restore the data dir {path} from a backup, or cut the file there (truncate -s BYTE FILE) and \
         remove the file {ends} in the data dir to go on with what stands before",
        path = data_dir.display(),
        ends = crate::high_water::ENDS
    )]
    Journal {
        /// The data dir.
        data_dir: PathBuf,
        /// Which file, and from which byte on.
        detail: String,
    },
    /// A setting that makes no sense.
    #[error("TS0316: {0}")]
    Settings(String),
}

impl StoreError {
    pub(crate) fn journal(data_dir: &std::path::Path, error: tillstream_journal::JournalError) -> Self {
        match error {
            tillstream_journal::JournalError::Io { doing, path, error } => Self::Io { doing, path, error },
            // Of databases that are made in their place, and of those without a lock around them: not this one.
            error @ (tillstream_journal::JournalError::NoVersion { .. }
            | tillstream_journal::JournalError::InUse { .. }) => Self::database(data_dir, error),
            error @ tillstream_journal::JournalError::Damaged { .. } => {
                Self::Journal { data_dir: data_dir.to_owned(), detail: error.to_string() }
            }
        }
    }

    pub(crate) fn database(data_dir: &std::path::Path, error: impl std::fmt::Display) -> Self {
        Self::Database { data_dir: data_dir.to_owned(), detail: error.to_string() }
    }
}
