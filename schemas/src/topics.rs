//! Topic names, and which of them are compacted.

use std::fmt;

/// Every topic there is. The discriminant is the embedded log's topic id: never reuse or reorder.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
#[repr(u8)]
pub enum Topic {
    /// Commands to the order task.
    OrderCommands = 1,
    /// The public history of orders.
    OrderEvents = 2,
    /// Commands to the item task.
    ItemCommands = 3,
    /// Stock levels and alerts.
    ItemEvents = 4,
    /// Products, latest value per key.
    Products = 5,
    /// Effects to perform.
    EffectRequests = 6,
    /// Folded changes for analytics.
    AnalyticsDeltas = 7,
    /// Revenue windows, latest value per key.
    AnalyticsWindows = 8,
    /// What the order task could not take.
    OrderCommandsDlq = 9,
    /// What the item task could not take.
    ItemCommandsDlq = 10,
    /// What the effects executor could not take.
    EffectRequestsDlq = 11,
    /// What the analytics task could not take.
    AnalyticsDeltasDlq = 12,
    /// Rows and timers of the order task, latest value per key. Only a cluster has changelogs.
    OrderChangelog = 13,
    /// Rows and timers of the item task.
    ItemChangelog = 14,
    /// Rows and timers of the analytics task.
    AnalyticsChangelog = 15,
    /// API keys and limits of tenants, every change ever made.
    AccessKeys = 16,
    /// Webhook endpoints of tenants, every change ever made.
    WebhookEndpoints = 17,
    /// Rules of tenants and which version is active, every change ever made.
    RuleRegistry = 18,
    /// Modules of rules, by content.
    RuleModules = 19,
    /// Calls of rules, kept for their authors: a few per rule.
    RuleSamples = 60,
    /// Rows and timers of the webhooks task.
    WebhooksChangelog = 50,
    /// Rows and timers of the item webhooks task.
    ItemWebhooksChangelog = 51,
}

impl Topic {
    /// The changelogs: topics of a cluster, besides [`Topic::ALL`].
    pub const CHANGELOGS: [Self; 5] = [
        Self::OrderChangelog,
        Self::ItemChangelog,
        Self::AnalyticsChangelog,
        Self::WebhooksChangelog,
        Self::ItemWebhooksChangelog,
    ];

    /// What tenants configured: every record has a key of its own, so that compaction keeps all of them.
    pub const REGISTRIES: [Self; 4] =
        [Self::AccessKeys, Self::WebhookEndpoints, Self::RuleRegistry, Self::RuleModules];

    /// Every topic of the pipeline itself, in embedded mode as on a cluster.
    pub const ALL: [Self; 17] = [
        Self::OrderCommands,
        Self::OrderEvents,
        Self::ItemCommands,
        Self::ItemEvents,
        Self::Products,
        Self::EffectRequests,
        Self::AnalyticsDeltas,
        Self::AnalyticsWindows,
        Self::OrderCommandsDlq,
        Self::ItemCommandsDlq,
        Self::EffectRequestsDlq,
        Self::AnalyticsDeltasDlq,
        Self::AccessKeys,
        Self::WebhookEndpoints,
        Self::RuleRegistry,
        Self::RuleModules,
        Self::RuleSamples,
    ];

    /// The pipeline's topics and the changelogs.
    pub fn every() -> impl Iterator<Item = Self> {
        Self::ALL.into_iter().chain(Self::CHANGELOGS)
    }

    /// The full name.
    pub fn name(self) -> &'static str {
        match self {
            Self::OrderCommands => "orders.order.commands.v1",
            Self::OrderEvents => "orders.order.events.v1",
            Self::ItemCommands => "items.item.commands.v1",
            Self::ItemEvents => "items.stock.events.v1",
            Self::Products => "catalog.product.state.v1",
            Self::EffectRequests => "effects.payment.requests.v1",
            Self::AnalyticsDeltas => "analytics.order.deltas.v1",
            Self::AnalyticsWindows => "analytics.revenue.windows.v1",
            Self::OrderCommandsDlq => "orders.order.commands.v1.dlq",
            Self::ItemCommandsDlq => "items.item.commands.v1.dlq",
            Self::EffectRequestsDlq => "effects.payment.requests.v1.dlq",
            Self::AnalyticsDeltasDlq => "analytics.order.deltas.v1.dlq",
            Self::OrderChangelog => "orders.order.changelog.v1",
            Self::ItemChangelog => "items.item.changelog.v1",
            Self::AnalyticsChangelog => "analytics.tenant.changelog.v1",
            Self::AccessKeys => "access.keys.v1",
            Self::WebhookEndpoints => "webhooks.endpoints.v1",
            Self::RuleRegistry => "rules.registry.v1",
            Self::RuleModules => "rules.modules.v1",
            Self::RuleSamples => "rules.samples.v1",
            Self::WebhooksChangelog => "webhooks.order.changelog.v1",
            Self::ItemWebhooksChangelog => "webhooks.item.changelog.v1",
        }
    }

    /// The short name people type: `orders.commands`, `orders.events`, …
    pub fn short_name(self) -> &'static str {
        match self {
            Self::OrderCommands => "orders.commands",
            Self::OrderEvents => "orders.events",
            Self::ItemCommands => "items.commands",
            Self::ItemEvents => "items.events",
            Self::Products => "catalog.products",
            Self::EffectRequests => "effects.requests",
            Self::AnalyticsDeltas => "analytics.deltas",
            Self::AnalyticsWindows => "analytics.windows",
            Self::OrderCommandsDlq => "orders.commands.dlq",
            Self::ItemCommandsDlq => "items.commands.dlq",
            Self::EffectRequestsDlq => "effects.requests.dlq",
            Self::AnalyticsDeltasDlq => "analytics.deltas.dlq",
            Self::OrderChangelog => "orders.changelog",
            Self::ItemChangelog => "items.changelog",
            Self::AnalyticsChangelog => "analytics.changelog",
            Self::AccessKeys => "access.keys",
            Self::WebhookEndpoints => "webhooks.endpoints",
            Self::RuleRegistry => "rules.registry",
            Self::RuleModules => "rules.modules",
            Self::RuleSamples => "rules.samples",
            Self::WebhooksChangelog => "webhooks.changelog",
            Self::ItemWebhooksChangelog => "item_webhooks.changelog",
        }
    }

    /// Finds a topic by its full or short name.
    pub fn parse(name: &str) -> Option<Self> {
        Self::every().find(|topic| topic.name() == name || topic.short_name() == name)
    }

    /// Finds a topic by its id.
    pub fn from_id(id: u8) -> Option<Self> {
        Self::every().find(|topic| *topic as u8 == id)
    }

    /// Where this topic's dead letters go, if a task or executor reads it.
    pub fn dlq(self) -> Option<Self> {
        match self {
            Self::OrderCommands => Some(Self::OrderCommandsDlq),
            Self::ItemCommands => Some(Self::ItemCommandsDlq),
            Self::EffectRequests => Some(Self::EffectRequestsDlq),
            Self::AnalyticsDeltas => Some(Self::AnalyticsDeltasDlq),
            _ => None,
        }
    }

    /// Whether it is itself a dead-letter topic.
    pub fn is_dlq(self) -> bool {
        matches!(
            self,
            Self::OrderCommandsDlq
                | Self::ItemCommandsDlq
                | Self::EffectRequestsDlq
                | Self::AnalyticsDeltasDlq
        )
    }

    /// Whether the latest value per key is kept: for ever, but of samples.
    pub fn compacted(self) -> bool {
        matches!(self, Self::Products | Self::AnalyticsWindows | Self::RuleSamples)
            || self.is_changelog()
            || self.is_registry()
    }

    /// Whether it holds what tenants configured. Its records lie in the partition of their tenant, not of their key.
    pub fn is_registry(self) -> bool {
        Self::REGISTRIES.contains(&self)
    }

    /// Its place in [`Topic::ALL`]; `None` for a changelog.
    pub fn index(self) -> Option<usize> {
        Self::ALL.iter().position(|it| *it == self)
    }

    /// Whether it holds the rows and timers of a task.
    pub fn is_changelog(self) -> bool {
        Self::CHANGELOGS.contains(&self)
    }
}

impl fmt::Display for Topic {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}
