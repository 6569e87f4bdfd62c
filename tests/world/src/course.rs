//! How a history goes on, whatever it runs on: one step of the plan after the other, and peace at the end.

use crate::client::{sku_name, tenant_name};
use crate::history::REST_MAX;
use crate::house::Outside;
use crate::oracle::{Checked, Seen, expect};
use crate::plan::{Action, Client, Plan, Step};
use crate::workload::SKUS;
use tillstream_stage::ids::key;

/// A client waits so long at most for the answer to a new product, ns.
const LAUNCH_MAX_NS: u64 = 300_000_000;

/// Beyond this every hold has expired.
const HOLDS_EXPIRE_MS: i64 = 16 * 60_000;

/// A history under way.
pub(crate) trait Course {
    /// What is around the processes.
    fn outside(&self) -> &Outside;
    /// What was read of it so far.
    fn seen(&mut self) -> &mut Seen;
    /// Where it is told what happens, if somebody listens.
    fn listener(&mut self) -> Option<&mut Vec<String>>;
    /// Lets time pass, and does what is due meanwhile.
    async fn until(&mut self, deadline_ns: u64) -> Checked;
    /// Does a step, and looks at what came of it by now.
    async fn step(&mut self, step: &Step) -> Checked;
    /// Reads what is new, and holds it against the promises.
    async fn look(&mut self) -> Checked;
    /// What has something left, for people; nothing if everything has come to rest.
    fn unfinished(&self) -> String;

    /// Says what happens, where somebody listens.
    fn tell(&mut self, line: impl FnOnce() -> String) {
        let at_ms = self.outside().now_ns() / 1_000_000;
        if let Some(trace) = self.listener() {
            trace.push(format!("{at_ms:>8} ms  {}", line()));
        }
    }

    /// Takes every step of the plan.
    async fn take_steps(&mut self, plan: &Plan) -> Checked {
        if self.listener().is_some() {
            self.seen().listen();
        }
        let mut open = false;
        for step in &plan.steps {
            let opens = step.number == Step::EARLY
                || matches!(step.action, Action::Client(Client::Product { .. } | Client::Adjust { .. }));
            if !open && !opens {
                open = true;
                self.open_shop(step.number as usize).await?;
            }
            self.until(self.outside().now_ns() + u64::from(step.wait_ms) * 1_000_000).await?;
            self.step(step).await?;
            if let Action::Client(Client::Product { tenant, sku, .. }) = &step.action
                && *sku >= SKUS
            {
                self.launched(*tenant, *sku).await?;
            }
        }
        Ok(())
    }

    /// A client that writes a new product waits for the answer, which comes with the commit, and goes on at once.
    async fn launched(&mut self, tenant: u8, sku: u8) -> Checked {
        let of = key(&tenant_name(tenant), &sku_name(sku));
        let deadline_ns = self.outside().now_ns() + LAUNCH_MAX_NS;
        while !self.seen().products.contains_key(&of) && self.outside().now_ns() < deadline_ns {
            self.until(self.outside().now_ns() + 1_000_000).await?;
            self.look().await?;
        }
        Ok(())
    }

    /// Orders come once the first products are there, if they come soon.
    async fn open_shop(&mut self, steps: usize) -> Checked {
        for _ in 0..400 {
            let items = self.seen().items.iter().map(Vec::len).sum::<usize>();
            if items >= steps && self.unfinished().is_empty() {
                return Ok(());
            }
            self.until(self.outside().now_ns() + 100_000_000).await?;
            self.look().await?;
        }
        Ok(())
    }

    /// Waits until everything has come to rest, and every hold has ended.
    async fn come_to_rest(&mut self) -> Checked {
        let deadline_ns = self.outside().now_ns() + REST_MAX.as_nanos() as u64;
        self.settle(deadline_ns).await?;
        for _ in 0..3 {
            if self.seen().order_timers() == 0 {
                break;
            }
            self.outside().clock.jump_ms(HOLDS_EXPIRE_MS);
            self.tell(|| "the clock jumps past every hold's end".to_owned());
            self.until(self.outside().now_ns() + 1_500_000_000).await?;
            self.settle(deadline_ns).await?;
        }
        let unfired = self.seen().order_timers();
        expect(unfired == 0, || format!("{unfired} timers of orders never fire"))
    }

    /// Waits until every task has taken everything.
    async fn settle(&mut self, deadline_ns: u64) -> Checked {
        let mut quiet = 0;
        while quiet < 2 {
            expect(self.outside().now_ns() <= deadline_ns, || {
                format!("not at rest after {} s: {}", REST_MAX.as_secs(), self.unfinished())
            })?;
            self.until(self.outside().now_ns() + 400_000_000).await?;
            self.look().await?;
            quiet = if self.unfinished().is_empty() { quiet + 1 } else { 0 };
        }
        Ok(())
    }
}
