//! Running the binary's other commands.

use crate::blocking;
use std::process::Command;
use tillstream_e2e::binary;

/// What a command did.
#[derive(Debug)]
pub struct Done {
    /// Its exit code; `None` for a signal.
    pub code: Option<i32>,
    /// Both streams.
    pub text: String,
    /// Standard output alone.
    pub answer: String,
}

impl Done {
    /// Expects exit code 0.
    pub fn ok(self) -> String {
        assert_eq!(self.code, Some(0), "{}", self.text);
        self.text
    }

    /// Expects exit code 0, and gives what it answered without what it said beside.
    pub fn answered(self) -> String {
        assert_eq!(self.code, Some(0), "{}", self.text);
        self.answer
    }

    /// Expects exit code 1 and a code of ours in the text.
    pub fn fails_with(self, code: &str) -> String {
        assert_eq!(self.code, Some(1), "{}", self.text);
        assert!(self.text.contains(code), "{code} is not in: {}", self.text);
        self.text
    }
}

/// Runs `tillstream` with nothing inherited that would change it. Verifying a large state takes long: it is killed after
/// a quarter of an hour.
pub async fn tillstream(arguments: Vec<String>) -> Done {
    blocking(move || {
        let mut command = Command::new("timeout");
        command.args(["--signal=KILL", "900"]).arg(binary()).args(arguments);
        for (name, _) in
            std::env::vars_os().filter(|(name, _)| name.to_string_lossy().starts_with("TILLSTREAM_"))
        {
            command.env_remove(name);
        }
        run(&mut command)
    })
    .await
}

/// Runs any command to its end.
pub fn run(command: &mut Command) -> Done {
    let output = command.output().expect("the command starts");
    let answer = String::from_utf8_lossy(&output.stdout).into_owned();
    let text = format!("{answer}{}", String::from_utf8_lossy(&output.stderr));
    Done { code: output.status.code(), text, answer }
}
