//! Children that die with the tests: the kernel kills them when the thread that started them ends, so one thread that
//! never ends starts them all.

use std::process::Command;
use std::sync::OnceLock;
use std::sync::mpsc::{Sender, channel};
use tillstream_e2e::Server;

type Work = Box<dyn FnOnce() + Send>;

fn spawner() -> &'static Sender<Work> {
    static SPAWNER: OnceLock<Sender<Work>> = OnceLock::new();
    SPAWNER.get_or_init(|| {
        let (sender, work) = channel::<Work>();
        std::thread::spawn(move || work.into_iter().for_each(|it| it()));
        sender
    })
}

/// The same command, to be killed by the kernel when its starter ends, where `setpriv` is there to ask for it.
fn bound(command: &Command) -> Command {
    let there = std::env::var_os("PATH")
        .is_some_and(|path| std::env::split_paths(&path).any(|it| it.join("setpriv").exists()));
    let mut bound = if there { Command::new("setpriv") } else { Command::new(command.get_program()) };
    if there {
        bound.args(["--pdeathsig", "KILL"]).arg(command.get_program());
    }
    bound.args(command.get_args());
    for (name, value) in command.get_envs() {
        match value {
            Some(value) => bound.env(name, value),
            None => bound.env_remove(name),
        };
    }
    bound
}

/// Starts a server of ours that listens on `port`.
pub fn spawn(command: &Command, port: u16) -> Server {
    let command = bound(command);
    let (told, started) = channel();
    let work = Box::new(move || {
        // Nobody waits only when the test is over.
        let _ = told.send(Server::spawn_command(command, port));
    });
    spawner().send(work).expect("the spawner never ends");
    started.recv().expect("the spawner answers")
}
