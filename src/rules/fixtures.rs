//! A project's fixtures: inputs in `fixtures/NAME.json`, and in `fixtures/NAME.snap.json` what the rule said to them.

use super::input::{Input, outcome};
use super::local::load;
use super::{RulesError, build, read};
use crate::output::line;
use std::path::Path;
use tillstream_rule_host::{Limits, Module, Pool};

const INPUT: &str = ".json";
const SNAPSHOT: &str = ".snap.json";

/// How what was said stands to what was kept.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Judgement {
    Same,
    Differs,
    New,
}

/// `rules test`: builds the project, runs every fixture, and compares; whether all is as it was kept.
pub(super) fn test(project: &Path, update: bool, cache: Option<&Path>) -> Result<bool, RulesError> {
    let module = load(&build::build(project, None, false)?, Pool::OnDemand, cache)?;
    let folder = project.join("fixtures");
    let names = names(&folder)?;
    if names.is_empty() {
        return Err(RulesError::NoFixture(folder));
    }
    let mut good = true;
    for name in &names {
        good &= one(&module, &folder, name, update)?;
    }
    line(format_args!(
        "{} fixtures{}",
        names.len(),
        if good { "" } else { "; not all are as they were kept" }
    ));
    Ok(good)
}

/// The fixtures of a folder, by name.
fn names(folder: &Path) -> Result<Vec<String>, RulesError> {
    let failed = |error| RulesError::File { path: folder.to_path_buf(), error };
    let mut names = Vec::new();
    for entry in std::fs::read_dir(folder).map_err(failed)? {
        let name = entry.map_err(failed)?.file_name().to_string_lossy().into_owned();
        if !name.ends_with(SNAPSHOT) {
            names.extend(name.strip_suffix(INPUT).map(str::to_owned));
        }
    }
    names.sort();
    Ok(names)
}

fn one(module: &Module, folder: &Path, name: &str, update: bool) -> Result<bool, RulesError> {
    let input = Input::read(&folder.join(format!("{name}{INPUT}")))?;
    let run = module.run(&input.order_id, &input.call, &input.settings_text(), u64::MAX);
    let found = format!("{:#}\n", outcome(&run));
    let path = folder.join(format!("{name}{SNAPSHOT}"));
    let kept = kept(&path)?;
    let judgement = judge(&found, kept.as_deref());
    let word = match (judgement, update) {
        (Judgement::Same, _) => "ok",
        (_, true) => {
            std::fs::write(&path, &found).map_err(|error| RulesError::File { path, error })?;
            "written"
        }
        (Judgement::Differs, false) => "DIFFERS",
        (Judgement::New, false) => "NEW",
    };
    let most = Limits::of(input.call.lines()).fuel;
    line(format_args!(
        "{word:<8} {name:<32} {:>9} fuel, {:.2} % of what a call has",
        run.fuel,
        run.fuel as f64 * 100.0 / most as f64
    ));
    if word == "DIFFERS" {
        difference(kept.as_deref().unwrap_or_default(), &found)
            .iter()
            .for_each(|it| line(format_args!("  {it}")));
    }
    if word == "NEW" {
        line(format_args!("  nothing is kept of it; look at this and keep it with --update:"));
        found.lines().for_each(|it| line(format_args!("  + {it}")));
    }
    Ok(update || judgement == Judgement::Same)
}

fn kept(path: &Path) -> Result<Option<String>, RulesError> {
    if !path.exists() {
        return Ok(None);
    }
    Ok(Some(String::from_utf8_lossy(&read(path)?).into_owned()))
}

fn judge(found: &str, kept: Option<&str>) -> Judgement {
    match kept {
        // A checkout may have changed how lines end.
        Some(kept) if kept.lines().eq(found.lines()) => Judgement::Same,
        Some(_) => Judgement::Differs,
        None => Judgement::New,
    }
}

/// The lines that are no more, and those that are there instead: without what both begin and end with.
fn difference(kept: &str, found: &str) -> Vec<String> {
    let (kept, found): (Vec<_>, Vec<_>) = (kept.lines().collect(), found.lines().collect());
    let same = |it: &(&&str, &&str)| it.0 == it.1;
    let head = kept.iter().zip(&found).take_while(same).count();
    let (kept, found) = (&kept[head..], &found[head..]);
    let tail = kept.iter().rev().zip(found.iter().rev()).take_while(same).count();
    let marked = |mark: char, lines: &[&str]| -> Vec<String> {
        lines[..lines.len() - tail].iter().map(|it| format!("{mark} {it}")).collect()
    };
    [marked('-', kept), marked('+', found)].concat()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_snapshot_is_judged_by_its_lines() {
        assert_eq!(judge("a\nb\n", Some("a\r\nb")), Judgement::Same);
        assert_eq!(judge("a\nb\n", Some("a\nc\n")), Judgement::Differs);
        assert_eq!(judge("a\nb\n", Some("a\n")), Judgement::Differs);
        assert_eq!(judge("a\n", None), Judgement::New);
    }

    #[test]
    fn a_difference_shows_what_changed_and_not_what_stayed() {
        assert_eq!(difference("a\nb\nc\n", "a\nx\ny\nc\n"), ["- b", "+ x", "+ y"]);
        assert_eq!(difference("a\na\n", "a\n"), ["- a"]);
        assert_eq!(difference("", "a\n"), ["+ a"]);
    }

    #[test]
    fn snapshots_are_no_fixtures_of_their_own() {
        let folder = tempfile::tempdir().unwrap();
        for file in ["two.json", "two.snap.json", "one.json", "notes.txt"] {
            std::fs::write(folder.path().join(file), "{}").unwrap();
        }
        assert_eq!(names(folder.path()).unwrap(), ["one", "two"]);
    }
}
