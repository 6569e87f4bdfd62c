//! Which offsets are finished: requests end in any order, the committed offset only grows over what is finished
//! without a gap.

use std::collections::VecDeque;

/// The offsets from the committed one on.
#[derive(Debug)]
pub(crate) struct Window {
    low: u64,
    finished: VecDeque<bool>,
}

impl Window {
    /// A window that begins at the committed offset.
    pub fn new(low: u64) -> Self {
        Self { low, finished: VecDeque::new() }
    }

    /// The first offset that is not finished: what may be committed.
    pub fn low(&self) -> u64 {
        self.low
    }

    /// One past the last offset begun: where to read on.
    pub fn high(&self) -> u64 {
        self.low + self.finished.len() as u64
    }

    /// Everything before `offset` is begun; offsets that the log skipped hold nothing and are finished.
    pub fn begin(&mut self, offset: u64) {
        self.skip_to(offset);
        if self.high() == offset {
            self.finished.push_back(false);
        }
    }

    /// Nothing before `offset` can be had: it counts as finished.
    pub fn skip_to(&mut self, offset: u64) {
        while self.high() < offset {
            self.finished.push_back(true);
        }
    }

    /// An offset is finished.
    pub fn finish(&mut self, offset: u64) {
        let index = offset.checked_sub(self.low).and_then(|it| usize::try_from(it).ok());
        if let Some(slot) = index.and_then(|it| self.finished.get_mut(it)) {
            *slot = true;
        }
    }

    /// Moves the low end over what is finished, and tells it.
    pub fn advance(&mut self) -> u64 {
        while self.finished.front() == Some(&true) {
            self.finished.pop_front();
            self.low += 1;
        }
        self.low
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;
    use std::collections::BTreeSet;

    #[test]
    fn a_gap_holds_the_offset_back() {
        let mut window = Window::new(10);
        for offset in 10..14 {
            window.begin(offset);
        }
        window.finish(11);
        window.finish(12);
        assert_eq!(window.advance(), 10);
        window.finish(10);
        assert_eq!(window.advance(), 13);
        assert_eq!(window.high(), 14);
    }

    proptest! {
        #[test]
        fn the_low_end_is_the_first_unfinished_offset(
            low in 0u64..1_000, skipped in prop::collection::btree_set(0u64..60, 0..20),
            order in prop::collection::vec((0u64..60, any::<bool>()), 0..120),
        ) {
            let mut window = Window::new(low);
            let present: Vec<u64> = (0..60).filter(|it| !skipped.contains(it)).map(|it| low + it).collect();
            for offset in &present {
                window.begin(*offset);
            }
            let mut open: BTreeSet<u64> = present.iter().copied().collect();
            for (index, advance) in order {
                window.finish(low + index);
                open.remove(&(low + index));
                if advance {
                    let expected = open.first().copied().unwrap_or(window.high());
                    prop_assert_eq!(window.advance(), expected);
                }
            }
        }
    }
}
