//! Consumer groups: members, generations, and partitions that move between members one after the other
//! (incremental, sticky).

use super::member::{ClientMember, Event, Fetch};
use super::producer::ClientProducer;
use super::world::{World, nanos};
use std::collections::{BTreeMap, BTreeSet};
use tillstream_log::TopicPartition;
use tillstream_log::broker::GroupOffset;
use tillstream_schemas::Topic;

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Owner {
    Of(u64),
    /// The member was told; the partition moves on once it lets go, or the deadline has passed.
    Releasing {
        member: u64,
        ticket: u64,
        deadline_ns: u64,
    },
}

impl Owner {
    pub(crate) fn member(self) -> u64 {
        match self {
            Self::Of(member) | Self::Releasing { member, .. } => member,
        }
    }
}

#[derive(Clone, Debug, Default)]
pub(crate) struct Group {
    pub(crate) topic: Option<Topic>,
    pub(crate) generation: u32,
    /// Member ids, and the client behind each.
    pub(crate) members: BTreeMap<u64, u64>,
    /// Partitions without an entry are nobody's.
    pub(crate) owners: BTreeMap<u32, Owner>,
    pub(crate) offsets: BTreeMap<TopicPartition, GroupOffset>,
}

impl Group {
    /// Who should own what: as even as can be, moving as little as can be.
    fn target(&self, partitions: u32) -> BTreeMap<u32, u64> {
        let members: Vec<u64> = self.members.keys().copied().collect();
        if members.is_empty() {
            return BTreeMap::new();
        }
        let least = partitions as usize / members.len();
        let mut extras = partitions as usize % members.len();
        let mut counts: BTreeMap<u64, usize> = members.iter().map(|it| (*it, 0)).collect();
        let mut target = BTreeMap::new();
        for partition in 0..partitions {
            let Some(Owner::Of(owner)) = self.owners.get(&partition) else { continue };
            let Some(count) = counts.get_mut(owner) else { continue };
            if *count < least || (*count == least && extras > 0) {
                extras -= usize::from(*count == least);
                *count += 1;
                target.insert(partition, *owner);
            }
        }
        for partition in 0..partitions {
            if !target.contains_key(&partition)
                && let Some((member, count)) = counts.iter_mut().min_by_key(|(_, count)| **count)
            {
                *count += 1;
                target.insert(partition, *member);
            }
        }
        target
    }
}

impl World {
    /// The client joins its group, as a new member.
    pub(crate) fn enter(&mut self, client: u64) {
        let id = self.id();
        let Some(member) = self.members.get_mut(&client) else { return };
        let (name, topic) = (member.group.clone(), member.topic);
        member.member_id = id;
        let group = self.groups.entry(name.clone()).or_default();
        group.topic = Some(topic);
        group.members.insert(id, client);
        self.rebalance(&name);
    }

    /// The broker takes the client's membership and partitions away; the client does not know yet.
    pub(crate) fn expel(&mut self, client: u64) {
        let Some(member) = self.members.get_mut(&client) else { return };
        let (name, id) = (member.group.clone(), member.member_id);
        member.expelled = true;
        self.remove_member(&name, id);
    }

    pub(crate) fn remove_member(&mut self, name: &str, id: u64) {
        let Some(group) = self.groups.get_mut(name) else { return };
        if group.members.remove(&id).is_none() {
            return;
        }
        group.owners.retain(|_, owner| owner.member() != id);
        self.rebalance(name);
    }

    /// An expelled client learns of it, and joins again; one that has left or is gone does not.
    pub(crate) fn tell(&mut self, client: u64) {
        let lives = |it: &&mut ClientMember| it.expelled && !it.left && it.gone_since_ns.is_none();
        let Some(member) = self.members.get_mut(&client).filter(lives) else { return };
        member.expelled = false;
        member.events.clear();
        let lost: Vec<u32> = std::mem::take(&mut member.fetches).into_keys().collect();
        if !lost.is_empty() {
            member.events.push_back(Event::Lost(lost));
        }
        self.enter(client);
        self.wake_all();
    }

    /// The holder of a ticket has let go.
    pub(crate) fn release(&mut self, name: &str, ticket: u64) {
        let Some(group) = self.groups.get_mut(name) else { return };
        let mut released = Vec::new();
        group.owners.retain(|partition, owner| match owner {
            Owner::Releasing { ticket: held, member, .. } if *held == ticket => {
                released.push((*partition, *member));
                false
            }
            _ => true,
        });
        for (partition, member) in &released {
            let client = group.members.get(member).copied();
            if let Some(client) = client.and_then(|it| self.members.get_mut(&it)) {
                client.fetches.remove(partition);
                let id = format!("{name}.{partition}");
                let own =
                    |it: &&mut ClientProducer| it.transactional_id == id && it.process == client.process;
                self.producers.values_mut().filter(own).for_each(|it| it.given_back = true);
            }
        }
        if !released.is_empty() {
            self.rebalance(name);
        }
    }

    /// A new generation: partitions that should move are asked back, those that are nobody's are given out.
    fn rebalance(&mut self, name: &str) {
        let Some(mut group) = self.groups.remove(name) else { return };
        let count = group.topic.and_then(|it| self.counts_of.get(&it).copied()).unwrap_or(0);
        group.generation += 1;
        self.note(format!("{name} generation {}", group.generation).as_bytes());
        let target = group.target(count);
        let mut given: BTreeMap<u64, Vec<u32>> = BTreeMap::new();
        let mut asked_back: BTreeMap<u64, Vec<u32>> = BTreeMap::new();
        for (partition, member) in target {
            match group.owners.get(&partition) {
                Some(Owner::Of(owner)) if *owner != member => {
                    asked_back.entry(*owner).or_default().push(partition);
                }
                Some(_) => {}
                None => given.entry(member).or_default().push(partition),
            }
        }
        let deadline_ns = self.now_ns.saturating_add(nanos(self.settings.rebalance_timeout));
        for (member, partitions) in asked_back {
            let ticket = self.id();
            for partition in &partitions {
                group.owners.insert(*partition, Owner::Releasing { member, ticket, deadline_ns });
            }
            if let Some(client) = client_of(&mut self.members, &group, member) {
                client.events.push_back(Event::Revoked { partitions, ticket });
            }
        }
        for (member, partitions) in given {
            for partition in &partitions {
                group.owners.insert(*partition, Owner::Of(member));
            }
            if let Some(client) = client_of(&mut self.members, &group, member) {
                client.fetches.extend(partitions.iter().map(|it| (*it, Fetch::default())));
                client.events.push_back(Event::Assigned(partitions));
            }
        }
        for client in group.members.values() {
            let process = self.members.get(client).map(|it| self.process(&it.process)).unwrap_or_default();
            if let Some(client) = self.members.get_mut(client)
                && process.silent_since_ns.is_none()
            {
                client.generation = group.generation;
            }
        }
        self.groups.insert(name.to_owned(), group);
        self.wake_all();
    }

    /// When the broker gives a silent member up.
    pub(crate) fn session_end_ns(&self, member: &ClientMember) -> Option<u64> {
        if member.expelled || member.left {
            return None;
        }
        let process = self.processes.get(&member.process);
        let silent = member.gone_since_ns.or(process.and_then(|it| it.silent_since_ns))?;
        Some(silent.saturating_add(nanos(self.settings.session_timeout)))
    }

    pub(crate) fn expel_due_members(&mut self) {
        let mut silent: BTreeSet<u64> = BTreeSet::new();
        for (client, member) in &self.members {
            if self.session_end_ns(member).is_some_and(|it| it <= self.now_ns) {
                silent.insert(*client);
            }
        }
        let mut slow: BTreeSet<u64> = BTreeSet::new();
        for group in self.groups.values() {
            let late = group.owners.values().filter_map(|owner| match owner {
                Owner::Releasing { member, deadline_ns, .. } if *deadline_ns <= self.now_ns => Some(member),
                _ => None,
            });
            slow.extend(late.filter_map(|it| group.members.get(it)));
        }
        for client in &silent {
            self.expel(*client);
        }
        for client in slow.difference(&silent) {
            self.expel(*client);
            let process = self.members.get(client).map(|it| self.process(&it.process)).unwrap_or_default();
            if process.silent_since_ns.is_none() {
                self.tell(*client);
            }
        }
    }

    /// The broker hears of a process again.
    pub(crate) fn hear_again(&mut self, process: &str) {
        let of_it = self.members.iter().filter(|(_, it)| &*it.process == process);
        let clients: Vec<u64> = of_it.map(|(client, _)| *client).collect();
        for client in clients {
            self.tell(client);
            let generation =
                self.members.get(&client).and_then(|it| self.groups.get(&it.group)).map(|it| it.generation);
            if let (Some(member), Some(generation)) = (self.members.get_mut(&client), generation) {
                member.generation = generation;
            }
        }
        self.wake_all();
    }
}

fn client_of<'a>(
    members: &'a mut BTreeMap<u64, ClientMember>,
    group: &Group,
    member: u64,
) -> Option<&'a mut ClientMember> {
    members.get_mut(group.members.get(&member)?)
}
