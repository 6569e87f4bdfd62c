//! Work beside the store's callers, on a thread of its own.

use crate::settings::Ended;
use futures::future::BoxFuture;
use std::sync::Arc;
use std::task::{Context, Wake, Waker};
use std::thread::Thread;

struct Unpark(Thread);

impl Wake for Unpark {
    fn wake(self: Arc<Self>) {
        self.0.unpark();
    }
}

/// Runs it to its end on this thread.
fn run(mut work: BoxFuture<'static, ()>) {
    let waker = Waker::from(Arc::new(Unpark(std::thread::current())));
    let mut context = Context::from_waker(&waker);
    while work.as_mut().poll(&mut context).is_pending() {
        std::thread::park();
    }
}

/// Runs it on a new thread; the answer waits until that has ended.
pub fn on_a_thread(name: &'static str, work: BoxFuture<'static, ()>) -> std::io::Result<Ended> {
    let thread = std::thread::Builder::new().name(name.to_owned()).spawn(move || run(work))?;
    Ok(Box::new(move || {
        thread.join().ok();
    }))
}

#[cfg(test)]
mod tests {
    use super::*;
    use tokio::sync::{mpsc, oneshot};

    #[test]
    fn work_that_waits_goes_on_when_it_is_woken_from_another_thread() {
        let (ask, mut asked) = mpsc::channel(1);
        let (answer, answered) = oneshot::channel();
        let work = async move {
            let first: u32 = asked.recv().await.unwrap();
            let second: u32 = asked.recv().await.unwrap();
            answer.send(first + second).unwrap();
        };
        let ended = on_a_thread("adds", Box::pin(work)).unwrap();
        ask.blocking_send(20).unwrap();
        ask.blocking_send(22).unwrap();
        assert_eq!(answered.blocking_recv(), Ok(42));
        ended();
    }
}
