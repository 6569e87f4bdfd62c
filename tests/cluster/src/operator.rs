//! What an operator, or an accident, does to the servers behind a deployment's back.

use crate::blocking;
use crate::cluster::{Cluster, PARTITIONS};
use crate::command::{Done, run};
use std::fs;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;
use tempfile::TempDir;

impl Cluster {
    /// One of Kafka's own tools.
    pub async fn kafka_tool(&self, class: &str, arguments: &[&str]) -> Done {
        let mut command = self.stack.kafka.tool(class);
        command.args(["--bootstrap-server", self.stack.kafka.address()]).args(arguments);
        blocking(move || run(&mut command)).await
    }

    /// `kafka-topics`.
    pub async fn topics_tool(&self, arguments: &[&str]) -> Done {
        self.kafka_tool("org.apache.kafka.tools.TopicCommand", arguments).await
    }

    /// Deletes a topic and makes it again, empty, as `topics create` does.
    pub async fn recreate_topic(&self, name: &str) {
        self.topics_tool(&["--delete", "--topic", name]).await.ok();
        // The broker forgets it a moment later.
        let again = crate::wait_for(Duration::from_secs(30), async || {
            let listed = self.topics_tool(&["--list"]).await.ok();
            (!listed.lines().any(|it| it == name)).then_some(())
        });
        assert!(again.await.is_some(), "{name} is still there");
        self.create_topics().await;
    }

    /// `kafka-consumer-groups`.
    pub async fn groups_tool(&self, arguments: &[&str]) -> Done {
        self.kafka_tool("org.apache.kafka.tools.consumer.group.ConsumerGroupCommand", arguments).await
    }

    /// Starts a worker that must end by itself with this code in its log.
    pub async fn halts_with(&self, code: &str) -> String {
        let worker = self.worker("", &[]);
        worker.start();
        let status = worker.ended().await;
        let output = worker.output().join("\n");
        assert!(!status.success() && output.contains(code), "{code} was expected, {status}:\n{output}");
        output
    }

    /// Runs `accept-offsets` or `adopt-changelog` for every partition of a kind.
    pub async fn repair(&self, command: &str, kind: &str, more: &[&str]) {
        for partition in 0..PARTITIONS {
            let task = format!("{kind}.{partition}");
            let mut all = vec![command, "--task", &task];
            all.extend(more);
            self.state(&all).await.ok();
        }
    }

    /// Stops the database and copies what it has on disk.
    pub async fn copy_database(self: &Arc<Self>) -> TempDir {
        let cluster = self.clone();
        blocking(move || {
            let node = &cluster.stack.cassandra;
            node.stop().expect("the database stops");
            let copy = tempfile::tempdir().expect("a folder");
            for name in data_folders(node.folder()) {
                copy_folder(&node.folder().join(&name), &copy.path().join(&name));
            }
            node.start_again().expect("the database starts again");
            copy
        })
        .await
    }

    /// Stops the database and puts a copy in the place of what it has.
    pub async fn restore_database(self: &Arc<Self>, copy: TempDir) {
        let cluster = self.clone();
        blocking(move || {
            let node = &cluster.stack.cassandra;
            node.stop().expect("the database stops");
            for name in data_folders(node.folder()) {
                let place = node.folder().join(&name);
                fs::remove_dir_all(&place).expect("the old data goes");
                copy_folder(&copy.path().join(&name), &place);
            }
            node.start_again().expect("the database starts again");
        })
        .await;
    }
}

/// Everything but settings, logs and certificates.
fn data_folders(folder: &Path) -> Vec<PathBuf> {
    let there = ["data", "commitlog", "hints", "saved_caches"].into_iter().map(PathBuf::from);
    let there: Vec<PathBuf> = there.filter(|it| folder.join(it).is_dir()).collect();
    assert!(there.len() >= 2, "data and commit log are not in {}", folder.display());
    there
}

fn copy_folder(from: &Path, to: &Path) {
    fs::create_dir_all(to).expect("a folder");
    for entry in fs::read_dir(from).expect("a folder can be read") {
        let entry = entry.expect("an entry can be read");
        let place = to.join(entry.file_name());
        if entry.file_type().expect("it has a type").is_dir() {
            copy_folder(&entry.path(), &place);
        } else {
            fs::copy(entry.path(), place).expect("a file can be copied");
        }
    }
}
