//! A transactional producer: the client's state machine and what it has not sent yet.

use super::call::Call;
use super::core::{Attempt, Core, Site};
use super::group::Group;
use super::member::Place;
use super::partition::StoredRecord;
use super::transaction::{Coordinated, LateCommit, Phase, Transaction};
use super::world::{World, nanos};
use futures::future::BoxFuture;
use std::collections::{BTreeMap, VecDeque};
use std::sync::Arc;
use tillstream_log::TopicPartition;
use tillstream_log::broker::{BrokerError, GroupMetadata, GroupOffset, ProduceRecord, TransactionalProducer};

#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum State {
    New,
    Ready,
    InTransaction,
    /// Only an abort helps.
    ToAbort(String),
    /// A commit was not answered: only another commit may tell.
    Uncertain,
    Dead(BrokerError),
}

pub(crate) struct ClientProducer {
    pub(crate) transactional_id: String,
    pub(crate) process: Arc<str>,
    pub(crate) state: State,
    epoch: u32,
    /// When its transaction began, ns.
    pub(crate) begun_ns: u64,
    /// Its partition was given back: its task is over.
    pub(crate) given_back: bool,
    /// Records not delivered yet, with their places in the order they were handed over.
    pub(crate) buffer: BTreeMap<TopicPartition, VecDeque<(usize, ProduceRecord)>>,
    /// Where records went, in that order.
    offsets: Vec<Option<u64>>,
}

impl ClientProducer {
    pub(crate) fn new(transactional_id: &str, process: &Arc<str>) -> Self {
        Self {
            transactional_id: transactional_id.to_owned(),
            process: process.clone(),
            state: State::New,
            epoch: 0,
            begun_ns: 0,
            given_back: false,
            buffer: BTreeMap::new(),
            offsets: Vec::new(),
        }
    }

    fn forget(&mut self, state: State) {
        self.state = state;
        self.buffer.clear();
        self.offsets.clear();
    }

    fn misuse(&self, call: Call) -> BrokerError {
        match &self.state {
            State::Dead(error) => error.clone(),
            State::ToAbort(why) => BrokerError::Abortable(why.clone()),
            state => BrokerError::Refused(format!("erroneous state: {call:?} while {state:?}")),
        }
    }

    /// What an error of a call makes of the client.
    fn take_note(&mut self, call: Call, error: &BrokerError) {
        match error {
            BrokerError::Fenced(_) => self.state = State::Dead(error.clone()),
            BrokerError::Abortable(why) if self.state == State::InTransaction => {
                self.state = State::ToAbort(why.clone());
            }
            BrokerError::Abortable(_) | BrokerError::OutOfRange { .. } | BrokerError::Refused(_) => {}
            BrokerError::Unknown(_) | BrokerError::Unavailable(_) => {
                if call == Call::Commit && matches!(self.state, State::InTransaction | State::Ready) {
                    self.state = State::Uncertain;
                }
            }
        }
    }
}

fn fenced(transactional_id: &str) -> BrokerError {
    BrokerError::Fenced(format!("{transactional_id} has a newer epoch"))
}

impl World {
    fn client(&mut self, handle: u64) -> Result<&mut ClientProducer, BrokerError> {
        self.producers.get_mut(&handle).ok_or_else(|| BrokerError::Refused("the producer is closed".into()))
    }

    /// The client of a call that is made within a transaction, its id and whether the last transaction's markers are
    /// still to be written.
    fn in_transaction(&mut self, handle: u64, call: Call) -> Result<(String, bool), BrokerError> {
        let client = self.client(handle)?;
        if client.state != State::InTransaction {
            return Err(client.misuse(call));
        }
        let (id, epoch) = (client.transactional_id.clone(), client.epoch);
        let coordinated = self.coordinators.get(&id).filter(|it| it.epoch == epoch);
        let ending = coordinated.ok_or_else(|| fenced(&id))?.is_ending();
        Ok((id, ending))
    }

    /// The transaction the coordinator has open for the id; begun if there is none.
    fn ongoing(&mut self, transactional_id: &str) -> Option<&mut Transaction> {
        let deadline_ns = self.now_ns.saturating_add(nanos(self.settings.transaction_timeout));
        let coordinated = self.coordinators.get_mut(transactional_id)?;
        if matches!(coordinated.phase, Phase::Idle) {
            coordinated.phase = Phase::Ongoing(Transaction { deadline_ns, ..Transaction::default() });
            self.quiet.ends_by(deadline_ns);
        }
        match &mut coordinated.phase {
            Phase::Ongoing(transaction) => Some(transaction),
            Phase::Idle | Phase::Ending { .. } => None,
        }
    }

    fn init(&mut self, handle: u64) -> Attempt<()> {
        let client = match self.client(handle) {
            Ok(client) => client,
            Err(error) => return Attempt::Done(Err(error)),
        };
        if client.state != State::New {
            return Attempt::Done(Err(client.misuse(Call::Init)));
        }
        let id = client.transactional_id.clone();
        if !self.coordinators.contains_key(&id) {
            let producer = self.id();
            self.coordinators.insert(id.clone(), Coordinated { producer, ..Coordinated::default() });
        }
        self.abort_from_outside(&id);
        let Some(coordinated) = self.coordinators.get_mut(&id) else { return Attempt::Wait };
        if coordinated.is_ending() {
            return Attempt::Wait;
        }
        coordinated.epoch += 1;
        let epoch = coordinated.epoch;
        self.client(handle)
            .map(|client| {
                client.epoch = epoch;
                client.state = State::Ready;
            })
            .into()
    }

    fn begin(&mut self, handle: u64) -> Result<(), BrokerError> {
        let client = self.client(handle)?;
        if client.state != State::Ready {
            return Err(client.misuse(Call::Begin));
        }
        client.forget(State::InTransaction);
        let now_ns = self.now_ns;
        self.client(handle)?.begun_ns = now_ns;
        Ok(())
    }

    fn produce(&mut self, handle: u64, records: &mut Vec<ProduceRecord>) -> Result<(), BrokerError> {
        let client = self.client(handle)?;
        if client.state != State::InTransaction {
            return Err(client.misuse(Call::Produce));
        }
        for record in &*records {
            self.partition(record.to)?;
        }
        let client = self.client(handle)?;
        for record in records.drain(..) {
            let place = client.offsets.len();
            client.offsets.push(None);
            client.buffer.entry(record.to).or_default().push_back((place, record));
        }
        self.deliver_something();
        Ok(())
    }

    /// Clients send when they like: the seed lets some records of somebody arrive.
    fn deliver_something(&mut self) {
        if !self.random.percent(self.settings.eager_percent) {
            return;
        }
        let waiting: Vec<u64> = self
            .producers
            .iter()
            .filter(|(_, it)| !it.buffer.is_empty())
            .map(|(handle, _)| *handle)
            .collect();
        let Some(handle) = waiting.get(self.random.below(waiting.len())).copied() else { return };
        let some = 1 + self.random.below(8);
        if let Ok((_, false)) = self.in_transaction(handle, Call::Deliver)
            && self.client(handle).map(|it| it.process.clone()).is_ok_and(|it| self.reaches(&it))
        {
            self.deliver(handle, Some(some));
        }
    }

    /// What the client holds goes to the log: in order within a partition, the partitions in any order.
    fn deliver(&mut self, handle: u64, some: Option<usize>) {
        let Some(client) = self.producers.get_mut(&handle) else { return };
        let id = client.transactional_id.clone();
        let mut taken: Vec<(TopicPartition, VecDeque<(usize, ProduceRecord)>)> = match some {
            None => std::mem::take(&mut client.buffer).into_iter().collect(),
            Some(count) => {
                let which = self.random.below(client.buffer.len());
                let Some((at, queue)) = client.buffer.iter_mut().nth(which) else { return };
                let records = queue.drain(..count.min(queue.len())).collect();
                let at = *at;
                client.buffer.retain(|_, queue| !queue.is_empty());
                vec![(at, records)]
            }
        };
        self.random.shuffle(&mut taken);
        let timestamp_ms = self.settings.clock.now_ms();
        let Some(producer) = self.coordinators.get(&id).map(|it| it.producer) else { return };
        for (at, records) in taken {
            let Some(transaction) = self.ongoing(&id) else { return };
            transaction.partitions.insert(at);
            let Some(partition) = self.partitions.get_mut(&at) else { continue };
            let Some(client) = self.producers.get_mut(&handle) else { return };
            for (place, record) in records {
                let (key, value, headers) = (record.key, record.value, record.headers);
                let record = StoredRecord { offset: 0, timestamp_ms, key, value, headers };
                client.offsets[place] = Some(partition.append(Some(producer), record));
            }
        }
    }

    fn flush(&mut self, handle: u64, id: &str) -> Result<(), BrokerError> {
        if let Some((_, error)) = self.strike(Call::Deliver, id) {
            return Err(error);
        }
        self.deliver(handle, None);
        Ok(())
    }

    fn drain(&mut self, handle: u64) -> Attempt<Vec<u64>> {
        let id = match self.in_transaction(handle, Call::Drain) {
            Ok((_, true)) => return Attempt::Wait,
            Ok((id, false)) => id,
            Err(error) => return Attempt::Done(Err(error)),
        };
        if let Err(error) = self.flush(handle, &id) {
            return Attempt::Done(Err(error));
        }
        self.client(handle)
            .map(|client| client.offsets.iter().map(|it| it.unwrap_or(u64::MAX)).collect())
            .into()
    }

    fn send_offset(
        &mut self,
        handle: u64,
        group: &str,
        place: &Place,
        at: TopicPartition,
        offset: &GroupOffset,
    ) -> Attempt<()> {
        let id = match self.in_transaction(handle, Call::SendOffset) {
            Ok((_, true)) => return Attempt::Wait,
            Ok((id, false)) => id,
            Err(error) => return Attempt::Done(Err(error)),
        };
        self.expect_drained(handle);
        self.deliver_something();
        if let Err(error) = self.partition(at) {
            return Attempt::Done(Err(error));
        }
        let known = self.groups.get(group).is_some_and(|it: &Group| {
            it.members.contains_key(&place.member_id) && it.generation == place.generation
        });
        if place.group != group || !known {
            let text = format!("illegal generation {} of {group}", place.generation);
            return Attempt::Done(Err(BrokerError::Abortable(text)));
        }
        self.expect_owner(group, place, at, offset);
        if let Some(transaction) = self.ongoing(&id) {
            transaction.offsets.insert((group.to_owned(), at), offset.clone());
        }
        Attempt::Done(Ok(()))
    }

    fn commit(&mut self, handle: u64) -> Attempt<()> {
        let uncertain = match self.client(handle) {
            Ok(client) => client.state == State::Uncertain,
            Err(error) => return Attempt::Done(Err(error)),
        };
        if uncertain {
            return self.commit_again(handle).into();
        }
        let id = match self.in_transaction(handle, Call::Commit) {
            Ok((_, true)) => return Attempt::Wait,
            Ok((id, false)) => id,
            Err(error) => return Attempt::Done(Err(error)),
        };
        if let Err(error) = self.flush(handle, &id) {
            return Attempt::Done(Err(error));
        }
        self.decide(&id, true);
        self.client(handle).map(|client| client.forget(State::Ready)).into()
    }

    /// A client that was not answered asks again.
    fn commit_again(&mut self, handle: u64) -> Result<(), BrokerError> {
        let (id, epoch) = self.client(handle).map(|it| (it.transactional_id.clone(), it.epoch))?;
        let coordinated =
            self.coordinators.get(&id).filter(|it| it.epoch == epoch).ok_or_else(|| fenced(&id))?;
        if !coordinated.is_ending() {
            self.flush(handle, &id)?;
            if self.coordinators.get(&id).is_some_and(|it| matches!(it.phase, Phase::Ongoing(_))) {
                self.decide(&id, true);
            }
        }
        self.client(handle).map(|client| client.forget(State::Ready))
    }

    /// The client's commit has left, and arrives when it is released.
    pub(crate) fn commit_later(&mut self, handle: u64) {
        let Ok((transactional_id, false)) = self.in_transaction(handle, Call::Commit) else { return };
        self.deliver(handle, None);
        let Some(coordinated) = self.coordinators.get(&transactional_id) else { return };
        let (epoch, decided) = (coordinated.epoch, coordinated.decided);
        self.late_commits.push(LateCommit { transactional_id, epoch, decided });
    }

    fn abort(&mut self, handle: u64) -> Attempt<()> {
        let client = match self.client(handle) {
            Ok(client) => client,
            Err(error) => return Attempt::Done(Err(error)),
        };
        if !matches!(client.state, State::InTransaction | State::ToAbort(_)) {
            return Attempt::Done(Err(client.misuse(Call::Abort)));
        }
        let (id, epoch) = (client.transactional_id.clone(), client.epoch);
        let Some(coordinated) = self.coordinators.get(&id).filter(|it| it.epoch == epoch) else {
            return Attempt::Done(Err(fenced(&id)));
        };
        if coordinated.is_ending() {
            return Attempt::Wait;
        }
        self.decide(&id, false);
        self.client(handle).map(|client| client.forget(State::Ready)).into()
    }
}

/// A producer's handle. Dropped, the client is gone: what it had not sent is lost, its transaction stays open.
pub(crate) struct SimProducer {
    pub(crate) core: Arc<Core>,
    pub(crate) process: Arc<str>,
    pub(crate) transactional_id: String,
    pub(crate) handle: u64,
}

impl Drop for SimProducer {
    fn drop(&mut self) {
        self.core.lock().producers.remove(&self.handle);
    }
}

impl SimProducer {
    async fn call<T>(
        &self,
        call: Call,
        timed_out: Option<fn(String) -> BrokerError>,
        attempt: impl FnMut(&mut World) -> Attempt<T>,
    ) -> Result<T, BrokerError> {
        self.core.lock().expect_in_time(self.handle, call);
        let (scope, process) = (&self.transactional_id, &self.process);
        let site = Site { call, scope, producer: Some(self.handle), process, timed_out };
        let result = self.core.call(site, attempt).await;
        if let Err(error) = &result
            && let Ok(client) = self.core.lock().client(self.handle)
        {
            client.take_note(call, error);
        }
        result
    }
}

impl TransactionalProducer for SimProducer {
    fn init(&self) -> BoxFuture<'_, Result<(), BrokerError>> {
        Box::pin(self.call(Call::Init, Some(BrokerError::Unavailable), |world| world.init(self.handle)))
    }

    fn begin(&self) -> BoxFuture<'_, Result<(), BrokerError>> {
        Box::pin(self.call(Call::Begin, None, |world| world.begin(self.handle).into()))
    }

    fn produce(&self, mut records: Vec<ProduceRecord>) -> BoxFuture<'_, Result<(), BrokerError>> {
        Box::pin(async move {
            self.call(Call::Produce, None, |world| world.produce(self.handle, &mut records).into()).await
        })
    }

    fn drain(&self) -> BoxFuture<'_, Result<Vec<u64>, BrokerError>> {
        Box::pin(self.call(Call::Drain, Some(BrokerError::Abortable), |world| world.drain(self.handle)))
    }

    fn send_offset(
        &self,
        group: &str,
        member: &GroupMetadata,
        partition: TopicPartition,
        offset: GroupOffset,
    ) -> BoxFuture<'_, Result<(), BrokerError>> {
        let (group, place) = (group.to_owned(), member.0.downcast_ref::<Place>().cloned());
        Box::pin(async move {
            let Some(place) = place else {
                return Err(BrokerError::Refused("not metadata of this broker".into()));
            };
            self.call(Call::SendOffset, Some(BrokerError::Unknown), |world| {
                world.send_offset(self.handle, &group, &place, partition, &offset)
            })
            .await
        })
    }

    fn commit(&self) -> BoxFuture<'_, Result<(), BrokerError>> {
        Box::pin(self.call(Call::Commit, Some(BrokerError::Unknown), |world| world.commit(self.handle)))
    }

    fn abort(&self) -> BoxFuture<'_, Result<(), BrokerError>> {
        Box::pin(self.call(Call::Abort, Some(BrokerError::Unknown), |world| world.abort(self.handle)))
    }
}
