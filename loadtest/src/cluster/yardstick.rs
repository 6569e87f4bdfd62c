//! The comparison program, on the same broker: run from a copy, its one JSON line read.

use super::house::{House, terminate};
use crate::BenchError;
use crate::report::progress;
use serde_json::Value;
use std::path::{Path, PathBuf};
use std::process::Stdio;
use std::time::Duration;
use tokio::process::Command;

/// A run that takes longer has hung.
const RUN_MAX: Duration = Duration::from_secs(900);
/// How long it may take to end its own children.
const STOP_MAX: Duration = Duration::from_secs(30);

/// The comparison program.
pub struct Yardstick {
    copy: PathBuf,
}

/// What it printed.
#[derive(Clone, Debug)]
pub struct Figures(Value);

impl Figures {
    /// One figure; NaN where it says none.
    pub fn get(&self, name: &str) -> f64 {
        self.0[name].as_f64().unwrap_or(f64::NAN)
    }

    /// Whether its own check of its results held.
    pub fn verified(&self) -> bool {
        self.0["verified"] == true
    }

    /// All of it.
    pub fn json(&self) -> &Value {
        &self.0
    }
}

impl Yardstick {
    /// Copies it out of `source`, which may be read-only. What an earlier run built there is used again.
    pub async fn copy(source: &Path) -> Result<Self, BenchError> {
        let copy = std::env::temp_dir().join("tillstream-yardstick");
        std::fs::create_dir_all(&copy).map_err(BenchError::io(copy.display().to_string()))?;
        let mut command = Command::new("cp");
        command.args(["-R", "--no-preserve=mode"]).arg(source.join(".")).arg(&copy);
        let status = command.status().await.map_err(BenchError::io("cp"))?;
        if status.success() && copy.join("run.sh").exists() {
            return Ok(Self { copy });
        }
        Err(BenchError::Yardstick(format!("{} cannot be copied", source.display())))
    }

    /// Runs one of its modes with these settings.
    pub async fn run(
        &self,
        house: &House,
        mode: &str,
        settings: &[(&str, String)],
    ) -> Result<Figures, BenchError> {
        progress(&format!("the yardstick: {mode} {settings:?}"));
        let scratch = house.dir().join("yardstick");
        std::fs::create_dir_all(&scratch).map_err(BenchError::io("a scratch folder"))?;
        let child = Command::new("bash")
            .args(["run.sh", mode])
            .current_dir(&self.copy)
            .env("BOOTSTRAP", house.brokers())
            .env("BROKER_PID", house.broker_pid()?.to_string())
            .env("SCRATCH", &scratch)
            .envs(settings.iter().map(|(name, value)| (name, value)))
            .stdin(Stdio::null())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .spawn()
            .map_err(BenchError::io("bash"))?;
        let pid = child.id();
        let ended = child.wait_with_output();
        tokio::pin!(ended);
        let output = match tokio::time::timeout(RUN_MAX, &mut ended).await {
            Ok(output) => output,
            Err(_) => {
                // It ends the process that it measures when it is asked to end itself.
                pid.map(terminate).transpose()?;
                let _ = tokio::time::timeout(STOP_MAX, &mut ended).await;
                return Err(BenchError::Yardstick("it has hung".into()));
            }
        }
        .map_err(BenchError::io("the yardstick"))?;
        let text = String::from_utf8_lossy(&output.stdout);
        // Its build tool may leave colour codes in front.
        let line = text.lines().rev().find_map(|it| it.get(it.find("{\"peer\"")?..));
        match line.and_then(|it| serde_json::from_str(it).ok()) {
            Some(figures) if output.status.success() => Ok(Figures(figures)),
            _ => Err(BenchError::Yardstick(format!(
                "it ended with {}: {text} {}",
                output.status,
                String::from_utf8_lossy(&output.stderr)
            ))),
        }
    }
}
