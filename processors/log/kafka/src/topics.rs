//! Topics and their settings: made, described, checked. Nothing that exists is altered.

use crate::bounds::refuse;
use crate::context::Plain;
use crate::error::KafkaClientError;
use crate::settings::KafkaSettings;
use rdkafka::admin::{
    AdminClient, AdminOptions, ConfigResource, NewTopic, OwnedResourceSpecifier, ResourceSpecifier,
    TopicReplication,
};
use rdkafka::consumer::{BaseConsumer, Consumer};
use rdkafka::error::{IsError, KafkaError, RDKafkaErrorCode};
use rdkafka::metadata::MetadataTopic;
use std::collections::BTreeMap;
use std::fmt;
use std::time::Duration;
use tillstream_schemas::Topic;

/// What the topics shall be like.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct TopicsSpec {
    /// Which.
    pub topics: Vec<Topic>,
    /// Partitions of each.
    pub partitions: u32,
    /// Copies of each partition.
    pub replication: u32,
    /// Copies that must have a record before it is acknowledged.
    pub min_insync_replicas: u32,
    /// How long commands, requests, deltas and stock events are kept, ms; -1 is for ever.
    pub retention_ms: i64,
    /// How long the orders' history is kept, ms.
    pub history_retention_ms: i64,
    /// How long dead letters are kept, ms.
    pub dlq_retention_ms: i64,
}

const DAY_MS: i64 = 86_400_000;

impl TopicsSpec {
    /// The defaults: 7 days of commands, 30 of history and dead letters.
    pub fn new(partitions: u32, replication: u32) -> Self {
        Self {
            topics: Topic::every().collect(),
            partitions,
            replication,
            // One copy may be missing without a halt, if there are enough of them.
            min_insync_replicas: replication.saturating_sub(1).max(1),
            retention_ms: 7 * DAY_MS,
            history_retention_ms: 30 * DAY_MS,
            dlq_retention_ms: 30 * DAY_MS,
        }
    }

    /// The settings of one topic, by Kafka's names.
    pub fn settings_of(&self, topic: Topic) -> Vec<(&'static str, String)> {
        // A dead letter holds the record it is of; a row may hold an order of 1,000 lines and its history.
        let bytes_max = if topic.is_dlq() || topic.is_changelog() { 8 << 20 } else { 4 << 20 };
        let mut settings = vec![
            ("max.message.bytes", bytes_max.to_string()),
            // An import of old orders must survive retention.
            ("message.timestamp.type", "LogAppendTime".to_owned()),
            ("min.insync.replicas", self.min_insync_replicas.to_string()),
        ];
        if topic.compacted() {
            let policy = if topic == Topic::RuleSamples { "compact,delete" } else { "compact" };
            settings.push(("cleanup.policy", policy.to_owned()));
            // A reader that is a day behind still sees what was deleted.
            settings.push(("delete.retention.ms", DAY_MS.to_string()));
            // Only closed segments are compacted.
            settings.push(("segment.ms", 3_600_000.to_string()));
            settings.push(("min.cleanable.dirty.ratio", "0.3".to_owned()));
            if topic == Topic::RuleSamples {
                settings.push(("retention.ms", DAY_MS.to_string()));
            }
        } else {
            let retention_ms = match topic {
                Topic::OrderEvents => self.history_retention_ms,
                it if it.is_dlq() => self.dlq_retention_ms,
                _ => self.retention_ms,
            };
            settings.push(("cleanup.policy", "delete".to_owned()));
            settings.push(("retention.ms", retention_ms.to_string()));
        }
        settings
    }
}

/// A topic as it is.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct TopicFound {
    /// Which.
    pub topic: Topic,
    /// Its partitions.
    pub partitions: u32,
    /// The fewest copies any partition has.
    pub replication: u32,
    /// All its settings.
    pub settings: BTreeMap<String, String>,
}

/// Something about a topic that is not as wanted.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Difference {
    /// Which topic.
    pub topic: Topic,
    /// Kafka's name of the setting, or `topic`, `partitions`, `replication`.
    pub setting: String,
    /// What it should be.
    pub wanted: String,
    /// What it is.
    pub found: String,
}

impl fmt::Display for Difference {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}: {} is {}, not {}", self.topic, self.setting, self.found, self.wanted)
    }
}

/// Makes and describes topics.
pub struct KafkaAdmin {
    client: AdminClient<Plain>,
    /// Asks first: unlike an admin client it is told why a broker does not let it in.
    questions: BaseConsumer<Plain>,
    timeout: Duration,
}

impl KafkaAdmin {
    /// A client for it.
    ///
    /// # Errors
    /// [`KafkaClientError::Settings`] when the client library does not take the settings.
    pub fn new(settings: &KafkaSettings) -> Result<Self, KafkaClientError> {
        let unfit = |error: KafkaError| KafkaClientError::Settings(error.to_string());
        let context = Plain::default();
        let client = settings.client().create_with_context(context.clone()).map_err(unfit)?;
        let group = format!("{}.admin", settings.deployment);
        let questions = settings.consumer(&group).create_with_context(context).map_err(unfit)?;
        Ok(Self { client, questions, timeout: settings.request_timeout() })
    }

    fn error(&self, error: &KafkaError) -> KafkaClientError {
        KafkaClientError::from_client(error, &self.client.inner().context().0)
    }

    /// The topics that exist, of those asked for. Blocks for the metadata; keep it off threads that must not.
    ///
    /// # Errors
    /// When the broker refuses or does not answer.
    pub async fn describe_topics(&self, topics: &[Topic]) -> Result<Vec<TopicFound>, KafkaClientError> {
        // All topics: a broker that makes missing topics would make the one it is asked for by name.
        let metadata = self.questions.fetch_metadata(None, self.timeout);
        let metadata = metadata.map_err(|error| refuse(&self.questions, &error))?;
        let mut found = Vec::new();
        for topic in topics {
            for it in metadata.topics().iter().filter(|it| it.name() == topic.name()) {
                found.extend(shape(*topic, it)?);
            }
        }
        let names: Vec<ResourceSpecifier<'_>> =
            found.iter().map(|it| ResourceSpecifier::Topic(it.topic.name())).collect();
        if names.is_empty() {
            return Ok(found);
        }
        let described = self.client.describe_configs(&names, &self.options()).await;
        let described = described.map_err(|error| self.error(&error))?;
        for described in described {
            let ConfigResource { specifier, entries } =
                described.map_err(|code| self.error(&KafkaError::AdminOp(code)))?;
            let OwnedResourceSpecifier::Topic(name) = specifier else { continue };
            if let Some(found) = found.iter_mut().find(|it| it.topic.name() == name) {
                found.settings =
                    entries.into_iter().filter_map(|it| it.value.map(|value| (it.name, value))).collect();
            }
        }
        Ok(found)
    }

    /// Makes the topics that are not there; which those were.
    ///
    /// # Errors
    /// [`KafkaClientError::Topic`] with the broker's words for the first it did not make, or when it does not answer.
    pub async fn create_topics(&self, spec: &TopicsSpec) -> Result<Vec<Topic>, KafkaClientError> {
        let settings: Vec<(Topic, Vec<(&str, String)>)> =
            spec.topics.iter().map(|it| (*it, spec.settings_of(*it))).collect();
        let replication = i32::try_from(spec.replication).unwrap_or(i32::MAX);
        let partitions = i32::try_from(spec.partitions).unwrap_or(i32::MAX);
        let topics: Vec<NewTopic<'_>> = settings
            .iter()
            .map(|(topic, settings)| {
                let new = NewTopic::new(topic.name(), partitions, TopicReplication::Fixed(replication));
                settings.iter().fold(new, |new, (name, value)| new.set(name, value))
            })
            .collect();
        let made = self.client.create_topics(&topics, &self.options()).await;
        let made = made.map_err(|error| self.error(&error))?;
        let mut created = Vec::new();
        for made in made {
            match made {
                Ok(name) => created.extend(Topic::parse(&name)),
                Err((_, RDKafkaErrorCode::TopicAlreadyExists)) => {}
                Err((name, code)) => {
                    let topic = Topic::parse(&name).ok_or(KafkaError::AdminOp(code));
                    return Err(refused(topic.map_err(|error| self.error(&error))?, code));
                }
            }
        }
        Ok(created)
    }

    /// What is not as wanted. A setting that the broker does not tell is not compared.
    ///
    /// # Errors
    /// When the broker refuses or does not answer.
    pub async fn check_topics(&self, spec: &TopicsSpec) -> Result<Vec<Difference>, KafkaClientError> {
        let found = self.describe_topics(&spec.topics).await?;
        Ok(spec.topics.iter().flat_map(|it| differences(spec, *it, &found)).collect())
    }

    fn options(&self) -> AdminOptions {
        AdminOptions::new().request_timeout(Some(self.timeout)).operation_timeout(Some(self.timeout))
    }
}

fn shape(topic: Topic, found: &MetadataTopic) -> Result<Option<TopicFound>, KafkaClientError> {
    match found.error().filter(|it| it.is_error()).map(RDKafkaErrorCode::from) {
        None => {}
        Some(RDKafkaErrorCode::UnknownTopicOrPartition | RDKafkaErrorCode::UnknownTopic) => return Ok(None),
        Some(code) => return Err(refused(topic, code)),
    }
    let copies = found.partitions().iter().map(|it| it.replicas().len()).min().unwrap_or(0);
    Ok(Some(TopicFound {
        topic,
        partitions: u32::try_from(found.partitions().len()).unwrap_or(u32::MAX),
        replication: u32::try_from(copies).unwrap_or(u32::MAX),
        settings: BTreeMap::new(),
    }))
}

fn refused(topic: Topic, code: RDKafkaErrorCode) -> KafkaClientError {
    KafkaClientError::Topic { topic, detail: code.to_string() }
}

fn differences(spec: &TopicsSpec, topic: Topic, found: &[TopicFound]) -> Vec<Difference> {
    let differ = |setting: &str, wanted: String, found: String| {
        (wanted != found).then(|| Difference { topic, setting: setting.to_owned(), wanted, found })
    };
    let Some(found) = found.iter().find(|it| it.topic == topic) else {
        return differ("topic", "there".into(), "missing".into()).into_iter().collect();
    };
    let mut differences = Vec::new();
    differences.extend(differ("partitions", spec.partitions.to_string(), found.partitions.to_string()));
    if found.replication < spec.replication {
        differences.extend(differ(
            "replication",
            spec.replication.to_string(),
            found.replication.to_string(),
        ));
    }
    for (name, wanted) in spec.settings_of(topic) {
        if let Some(found) = found.settings.get(name) {
            differences.extend(differ(name, wanted, found.clone()));
        }
    }
    differences
}

#[cfg(test)]
mod tests {
    use super::*;

    fn as_wanted(spec: &TopicsSpec, topic: Topic) -> TopicFound {
        let settings =
            spec.settings_of(topic).into_iter().map(|(name, value)| (name.to_owned(), value)).collect();
        TopicFound { topic, partitions: spec.partitions, replication: spec.replication, settings }
    }

    #[test]
    fn every_kind_of_difference_is_named() {
        let spec = TopicsSpec::new(4, 3);
        let topic = Topic::OrderChangelog;
        let told = |change: fn(&mut TopicFound)| {
            let mut found = as_wanted(&spec, topic);
            change(&mut found);
            let all = differences(&spec, topic, &[found]);
            all.iter().map(|it| format!("{} {} {}", it.setting, it.wanted, it.found)).collect::<Vec<_>>()
        };
        assert!(told(|_| {}).is_empty());
        assert_eq!(told(|it| it.partitions = 5), ["partitions 4 5"]);
        assert_eq!(told(|it| it.replication = 1), ["replication 3 1"]);
        assert!(told(|it| it.replication = 4).is_empty(), "more copies are no difference");
        assert_eq!(
            told(|it| {
                it.settings.insert("cleanup.policy".into(), "delete".into());
            }),
            ["cleanup.policy compact delete"]
        );
        assert!(
            told(|it| {
                it.settings.remove("min.cleanable.dirty.ratio");
            })
            .is_empty()
        );
        assert_eq!(differences(&spec, topic, &[]).len(), 1);
    }

    #[test]
    fn a_dead_letter_may_be_larger_than_the_record_it_is_of() {
        let spec = TopicsSpec::new(4, 1);
        let limit = |topic: Topic| {
            let settings = spec.settings_of(topic);
            let found = settings.iter().find(|it| it.0 == "max.message.bytes").unwrap();
            found.1.parse::<u64>().unwrap()
        };
        for topic in Topic::ALL {
            if let Some(dlq) = topic.dlq() {
                assert!(limit(dlq) > limit(topic), "{topic}");
            }
        }
    }
}
