//! What a task must not go on over: each is an error of its own, with the command that repairs it.

use tillstream_log::{LogError, TopicPartition};
use tillstream_state::TaskId;
use tillstream_state::row_store::Deployment;

/// Log and state do not fit together.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Halt {
    /// The group has no offset although the task has worked before.
    #[error(
        "the group of {task} has no offset for {input}, though the task has worked before: the topic was recreated, \
         or the offset expired or was deleted; `tillstream state accept-offsets --task {task} --from earliest` goes on \
         with what the topic holds now"
    )]
    OffsetMissing {
        /// The task.
        task: TaskId,
        /// Its input.
        input: TopicPartition,
    },
    /// The input begins behind the committed offset.
    #[error(
        "{task} must go on from offset {committed}, but {input} begins at {start}: records it has not read are gone; \
         bring them back, or accept the loss with `tillstream state accept-offsets --task {task} --from earliest`"
    )]
    InputGone {
        /// The task.
        task: TaskId,
        /// Its input.
        input: TopicPartition,
        /// Where it must go on.
        committed: u64,
        /// What is still there.
        start: u64,
    },
    /// The input ends before the committed offset.
    #[error(
        "{task} has committed offset {committed}, but {input} ends at {end}: the topic was recreated or cut; \
         `tillstream state accept-offsets --task {task} --from earliest` goes on with what the topic holds now"
    )]
    InputCut {
        /// The task.
        task: TaskId,
        /// Its input.
        input: TopicPartition,
        /// Where it must go on.
        committed: u64,
        /// Where the topic ends.
        end: u64,
    },
    /// The changelog does not reach to the checkpoint.
    #[error(
        "the tables of {task} hold what {changelog} held up to offset {checkpoint}, but that holds {start}..{end}: the \
         changelog was recreated or cut; `tillstream state adopt-changelog --task {task}` writes it anew from the tables"
    )]
    ChangelogCut {
        /// The task.
        task: TaskId,
        /// Its changelog.
        changelog: TopicPartition,
        /// The checkpoint's offset.
        checkpoint: u64,
        /// The changelog's first offset.
        start: u64,
        /// The changelog's end.
        end: u64,
    },
    /// The database is older than the log says.
    #[error(
        "the tables of {task} are at checkpoint {found}, but the log was committed with checkpoint {expected}: the \
         database was restored from an older copy, emptied, or is another one; `tillstream state rebuild` fills it from \
         the changelog"
    )]
    DatabaseOlder {
        /// The task.
        task: TaskId,
        /// What the log says.
        expected: String,
        /// What the database says.
        found: String,
    },
    /// A table has lost its mark.
    #[error(
        "the {table} table of {task} was emptied behind our back; `tillstream state rebuild` fills it from the changelog"
    )]
    TableTruncated {
        /// The task.
        task: TaskId,
        /// The table.
        table: &'static str,
    },
    /// The keyspace belongs to another deployment.
    #[error(
        "the keyspace belongs to {field} {theirs}, this is {ours}: two deployments must not share a keyspace; give this \
         one its own with --keyspace"
    )]
    OtherDeployment {
        /// What differs.
        field: &'static str,
        /// Theirs.
        theirs: String,
        /// Ours.
        ours: String,
    },
    /// The number of partitions is not what the keyspace was made with.
    #[error(
        "{what} has {found} partitions, the keyspace was made for {expected}: keys would change their partition; \
         set --partitions {expected}, or recreate a topic that was changed with {expected} partitions"
    )]
    Partitions {
        /// What has them: a topic, or the setting.
        what: String,
        /// How many.
        found: u32,
        /// How many it must have.
        expected: u32,
    },
    /// A rebuild has not ended.
    #[error("a rebuild of the tables has begun and not ended; run `tillstream state rebuild` again")]
    Rebuilding,
    /// A changelog record cannot be read.
    #[error(
        "{changelog} offset {offset} is no changelog record of ours ({detail}); somebody else writes to that topic"
    )]
    ForeignRecord {
        /// The changelog.
        changelog: TopicPartition,
        /// The record.
        offset: u64,
        /// What is wrong.
        detail: String,
    },
}

impl Halt {
    /// The stable code.
    pub fn code(&self) -> &'static str {
        match self {
            Self::OffsetMissing { .. } => "TS0320",
            Self::InputGone { .. } => "TS0321",
            Self::InputCut { .. } => "TS0322",
            Self::ChangelogCut { .. } => "TS0323",
            Self::DatabaseOlder { .. } => "TS0324",
            Self::TableTruncated { .. } => "TS0325",
            Self::OtherDeployment { .. } => "TS0326",
            Self::Partitions { .. } => "TS0327",
            Self::Rebuilding => "TS0328",
            Self::ForeignRecord { .. } => "TS0329",
        }
    }
}

impl std::convert::From<Halt> for LogError {
    fn from(halt: Halt) -> Self {
        Self::Halted { code: halt.code(), message: halt.to_string() }
    }
}

/// Whether a keyspace made by `theirs` may be used as `ours`.
///
/// # Errors
/// What differs.
pub fn deployment_conflict(theirs: &Deployment, ours: &Deployment) -> Result<(), Halt> {
    let fields = [
        ("deployment", &theirs.name, &ours.name),
        ("the deployment on broker cluster", &theirs.cluster_id, &ours.cluster_id),
    ];
    for (field, their, our) in fields {
        if their != our {
            return Err(Halt::OtherDeployment { field, theirs: their.to_string(), ours: our.to_string() });
        }
    }
    if theirs.partitions != ours.partitions {
        let what = "--partitions".to_owned();
        return Err(Halt::Partitions { what, found: ours.partitions, expected: theirs.partitions });
    }
    if theirs.rebuilding {
        return Err(Halt::Rebuilding);
    }
    Ok(())
}
