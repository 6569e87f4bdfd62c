//! What waits for the group-commit thread, and which of it makes the next group.
//!
//! Whoever appends has somebody waiting for an answer: a client at the door, a payment provider's reply. A task's
//! commit has only its next batch waiting, and is larger by a hundred times. So all appends that wait are in the next
//! group, and of the commits as many as do not hold them up for long; at least one, so that no flood of appends stops
//! the tasks.

use std::collections::VecDeque;

/// What the queue must know of a request.
pub trait Queued {
    /// Whether somebody outside waits for it.
    fn is_append(&self) -> bool;
    /// About how many bytes it will write.
    fn size(&self) -> usize;
}

/// How large a group may grow, bytes. The request that passes a bound is the last one taken.
#[derive(Clone, Copy, Debug)]
pub struct GroupBounds {
    /// Any group.
    pub bytes_max: usize,
    /// The commits of a group that has appends in it.
    pub beside_appends_bytes_max: usize,
}

/// Requests that wait, appends and commits apart, each in the order in which they came.
pub struct Queue<R> {
    appends: VecDeque<R>,
    commits: VecDeque<R>,
}

impl<R: Queued> Queue<R> {
    /// Nothing waits.
    pub fn new() -> Self {
        Self { appends: VecDeque::new(), commits: VecDeque::new() }
    }

    /// Whether nothing waits.
    pub fn is_empty(&self) -> bool {
        self.appends.is_empty() && self.commits.is_empty()
    }

    /// One more.
    pub fn push(&mut self, request: R) {
        if request.is_append() {
            self.appends.push_back(request);
        } else {
            self.commits.push_back(request);
        }
    }

    /// The next group: empty only if nothing waits.
    pub fn take_group(&mut self, bounds: GroupBounds) -> Vec<R> {
        let mut group = Vec::new();
        let appends = take_until(&mut self.appends, bounds.bytes_max, &mut group);
        let left = bounds.bytes_max.saturating_sub(appends);
        let room = if group.is_empty() { left } else { left.min(bounds.beside_appends_bytes_max) };
        take_until(&mut self.commits, room, &mut group);
        group
    }
}

/// Moves requests until `room` bytes are passed, at least one if there is any; says how many bytes they are.
fn take_until<R: Queued>(from: &mut VecDeque<R>, room: usize, to: &mut Vec<R>) -> usize {
    let mut bytes = 0;
    while let Some(request) = from.pop_front() {
        bytes += request.size();
        to.push(request);
        if bytes >= room {
            break;
        }
    }
    bytes
}

#[cfg(test)]
mod tests {
    use super::{GroupBounds, Queue, Queued};
    use proptest::prelude::*;

    const BOUNDS: GroupBounds = GroupBounds { bytes_max: 100, beside_appends_bytes_max: 20 };

    #[derive(Clone, Copy, Debug, PartialEq)]
    struct Asked {
        append: bool,
        size: usize,
        number: usize,
    }

    impl Queued for Asked {
        fn is_append(&self) -> bool {
            self.append
        }

        fn size(&self) -> usize {
            self.size
        }
    }

    fn queue(asked: &[(bool, usize)]) -> Queue<Asked> {
        let mut queue = Queue::new();
        for (number, &(append, size)) in asked.iter().enumerate() {
            queue.push(Asked { append, size, number });
        }
        queue
    }

    fn numbers(group: &[Asked]) -> Vec<usize> {
        group.iter().map(|it| it.number).collect()
    }

    #[test]
    fn appends_overtake_commits_that_came_before_them() {
        let mut queue = queue(&[(false, 15), (false, 15), (false, 15), (true, 1), (true, 1)]);
        assert_eq!(
            numbers(&queue.take_group(BOUNDS)),
            [3, 4, 0, 1],
            "20 bytes of commits, the last one passes it"
        );
        assert_eq!(numbers(&queue.take_group(BOUNDS)), [2]);
        assert!(queue.is_empty());
    }

    #[test]
    fn a_flood_of_appends_does_not_stop_the_commits() {
        let mut queue = queue(&[(true, 60), (false, 500), (true, 60), (true, 60), (false, 1)]);
        assert_eq!(numbers(&queue.take_group(BOUNDS)), [0, 2, 1]);
        assert_eq!(numbers(&queue.take_group(BOUNDS)), [3, 4]);
    }

    #[test]
    fn commits_alone_fill_a_whole_group() {
        let mut queue = queue(&[(false, 40), (false, 40), (false, 40), (false, 40)]);
        assert_eq!(numbers(&queue.take_group(BOUNDS)), [0, 1, 2]);
        assert_eq!(numbers(&queue.take_group(BOUNDS)), [3]);
    }

    proptest! {
        #[test]
        fn nothing_is_lost_or_turned_round_and_groups_are_bounded(
            asked in prop::collection::vec((any::<bool>(), 0_usize..150), 0..60)
        ) {
            let mut queue = queue(&asked);
            let mut seen = Vec::new();
            while !queue.is_empty() {
                let commits_waited = !queue.commits.is_empty();
                let group = queue.take_group(BOUNDS);
                prop_assert!(!group.is_empty());
                prop_assert_eq!(group.iter().any(|it| !it.append), commits_waited, "each group has a commit if one waits");
                for append in [true, false] {
                    let sizes: Vec<usize> = group.iter().filter(|it| it.append == append).map(|it| it.size).collect();
                    let but_the_last = sizes.iter().take(sizes.len().saturating_sub(1)).sum::<usize>();
                    let bound = if !append && group[0].append { 20 } else { 100 };
                    prop_assert!(but_the_last < bound, "{but_the_last} of {bound}");
                }
                seen.extend(group);
            }
            for append in [true, false] {
                let came: Vec<usize> = (0..asked.len()).filter(|it| asked[*it].0 == append).collect();
                let went: Vec<usize> = seen.iter().filter(|it| it.append == append).map(|it| it.number).collect();
                prop_assert_eq!(came, went);
            }
        }
    }
}
